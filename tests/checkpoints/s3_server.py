"""An S3-compatible server in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import fsspec
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, str], object]]:
    """(environment variables that send every S3 client there, a client of it); there is a bucket `runs`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="runs")
        yield environment, client
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        server.stop()
