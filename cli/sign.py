"""`dlink-sign`: who stands for a plan."""

import os
from pathlib import Path

import click

from dlink.cli.options import IN_FILE, OUT_PATH
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput

PASSWORD = "DLINK_KEY_PASSWORD"


@click.command(cls=Step, short_help="Sign a plan.")
@click.argument("key", type=OUT_PATH)
@click.argument("plan", type=IN_FILE, required=False)
@click.option("--new", is_flag=True, help="Make a pair of keys first: KEY, to be kept secret, and KEY.pub.")
def sign(key: Path, plan: Path | None, new: bool) -> None:
    """Sign PLAN's manifest, and with it the plan, with the private KEY (Ed25519, PEM).

    Sign after dlink-check, which writes its verdict into the manifest. What loads plans can be told to take only those
    that one of some public keys has signed: open_model(plan, keys=[...]), or --key on the command line. The password of
    an encrypted key is asked for, or read from $DLINK_KEY_PASSWORD.
    """
    if not new and not plan:
        raise BadInput("PLAN is missing: name the plan to sign, or give --new for a pair of keys")
    if plan and plan.suffix != ".plan":
        raise BadInput(f"{plan}: expected a plan (.plan)")
    from dlink.trt_runtime import signing
    from dlink.trt_runtime.manifest import parse, read_bytes
    from dlink.trt_runtime.plan import read_exactly

    if new:
        click.echo(f"{signing.make_keys(key)}: the public key; {key} is the private one, keep it to yourself")
    if not plan:
        return
    said = read_bytes(plan)
    manifest = parse(said, plan)
    read_exactly(plan, manifest)
    click.echo(f"{signing.sign(plan, said, private(key))}: {plan} signed")
    if manifest.verdict is None:
        click.echo("note: it has no verdict yet; dlink-check writes one, and then it is to be signed again", err=True)


def private(key: Path):  # type: ignore[no-untyped-def]  # cryptography's type, not to be imported here
    from dlink.trt_runtime.signing import read_private

    password = os.environ.get(PASSWORD)
    try:
        return read_private(key, password.encode() if password else None)
    except TypeError:  # it is encrypted
        return read_private(key, click.prompt(f"Password of {key}", hide_input=True, err=True).encode())
