"""Whether data are well, and what to do if not: python scripts/data_doctor.py --help"""

import sys

from olmo.data_commands.doctor import main
from olmo.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
