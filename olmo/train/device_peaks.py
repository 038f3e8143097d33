"""Peak speed of devices whose data sheets are known: what model FLOPs utilisation divides by."""

PEAKS = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
}
"""Dense bf16 FLOP/s (without sparsity) by a part of the device's name; more special names stand first."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of the device that CUDA calls `device_name`; None where it is not known."""
    words = device_name.replace("-", " ").split()
    return next((peak for name, peak in PEAKS.items() if all(part in words for part in name.split())), None)
