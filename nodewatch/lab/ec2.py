"""The lab's account in EC2: the network, the launch template, the first instances; and what the instances are now."""

import base64
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import (
    AWS_ENVIRONMENT,
    CLOUD_NETNS,
    FIRST_NODE_ADDRESS,
    INSTANCE_TYPE,
    LAUNCH_TEMPLATE,
    NODE_TAG,
    SUBNET,
    file_of,
)
from nodewatch.lab.network import NETNS_DIR
from nodewatch.lab.slurm import Shape

CLONE_NEWNET = 0x40000000
# boto3's clients are made at run time and have no type of their own.
Api = Any
IMAGE_ID = "ami-0ab1ab1ab1ab1ab1a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One row of DescribeInstances."""

    ident: str
    state: str
    address: str
    node: str


def client() -> Api:
    """A boto3 EC2 client for the lab's cloud. It only reaches it from inside the cloud's network."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "ec2",
        endpoint_url=AWS_ENVIRONMENT["AWS_ENDPOINT_URL"],
        aws_access_key_id=AWS_ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        region_name=AWS_ENVIRONMENT["AWS_DEFAULT_REGION"],
        config=Config(connect_timeout=2, read_timeout=20, retries={"mode": "standard", "max_attempts": 3}),
    )


@contextmanager
def inside_cloud() -> Iterator[Api]:
    """An EC2 client, usable within the block: this thread is in the cloud's network namespace meanwhile."""
    try:
        there = os.open(NETNS_DIR / CLOUD_NETNS, os.O_RDONLY)
    except FileNotFoundError:
        raise LabError("the lab is not up: run lab up first") from None
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise LabError(f"cannot enter the cloud's network: {os.strerror(ctypes.get_errno())}")
        try:
            yield client()
        finally:
            libc.setns(here, CLONE_NEWNET)
    finally:
        os.close(there)
        os.close(here)


def addresses(shape: Shape) -> list[tuple[str, str]]:
    """The first instances' node names and the private addresses that they are launched with."""
    network = SUBNET.rsplit(".", 1)[0]
    return [(name, f"{network}.{FIRST_NODE_ADDRESS + index}") for index, name in enumerate(shape.names)]


def found_account(ec2: Api, shape: Shape) -> str:
    """Make the VPC, its subnet and the launch template; returns the subnet's id."""
    vpc = ec2.create_vpc(CidrBlock=SUBNET)["Vpc"]["VpcId"]
    subnet: str = ec2.create_subnet(VpcId=vpc, CidrBlock=SUBNET)["Subnet"]["SubnetId"]
    user_data = file_of("files/user-data").read_bytes()
    ec2.create_launch_template(
        LaunchTemplateName=LAUNCH_TEMPLATE,
        LaunchTemplateData={
            "ImageId": IMAGE_ID,
            "InstanceType": INSTANCE_TYPE,
            "UserData": base64.b64encode(user_data).decode(),
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "lab", "Value": "nodewatch"}]}],
        },
    )
    for name, address in addresses(shape):
        ec2.run_instances(
            LaunchTemplate={"LaunchTemplateName": LAUNCH_TEMPLATE},
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            PrivateIpAddress=address,
            ClientToken=f"lab-up-{name}",
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": NODE_TAG, "Value": name}]}],
        )
    return subnet


def instances(ec2: Api) -> list[Instance]:
    """Every instance that EC2 still speaks of, by launch order."""
    rows = []
    for page in ec2.get_paginator("describe_instances").paginate():
        for reservation in page["Reservations"]:
            for row in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in row.get("Tags", [])}
                rows.append(
                    Instance(
                        ident=row["InstanceId"],
                        state=row["State"]["Name"],
                        address=row.get("PrivateIpAddress", ""),
                        node=tags.get(NODE_TAG, ""),
                    )
                )
    return rows


def user_data(ec2: Api, ident: str) -> bytes:
    """What the instance was told to run at its first boot."""
    answer = ec2.describe_instance_attribute(InstanceId=ident, Attribute="userData")
    return base64.b64decode(answer.get("UserData", {}).get("Value", ""))
