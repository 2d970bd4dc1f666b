"""The object store in an S3 bucket, or any service that honours ``If-None-Match`` on PUT.

boto3's ``put_object`` is called directly, since s3transfer does not pass ``IfNoneMatch`` on. Retries bridge short
outages (a restarting server answers 500 for some seconds); a longer outage raises StoreError.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage.base import Content, Listed, holds

_CONFLICT_TRIES = 8  # tries after 409: another conditional write is in progress
_TRIES = 10  # with botocore's back-off they last longer than a server's restart
_REPLY_SECONDS = 20  # a request that gets no byte for so long is tried again
_AGAIN = "Is the S3 server up? Run again to go on."


class S3Store:
    """A store under a prefix of one bucket. ``options`` are boto3's client arguments (endpoint, region, keys)."""

    def __init__(self, bucket: str, prefix: str = "", **options: Any) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._options = {"region_name": "us-east-1", **options}
        self._where = f"bucket {bucket!r} at {options.get('endpoint_url') or 'AWS'}"
        self._patient = self._client(_TRIES)
        self._gone = False  # the last request failed at its last try: no reply, or a server error

    def _client(self, tries: int, **more: Any) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=5,
            read_timeout=_REPLY_SECONDS,
            max_pool_connections=64,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **more,
        )
        session = botocore.session.get_session()
        # By default dateutil parses each date, which takes longer than all the rest of a listing.
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_date)
        return boto3.session.Session(botocore_session=session).client("s3", config=config, **self._options)

    @cached_property
    def _brief(self) -> Any:
        """A client without retries, for a long outage: a run that is ending must not wait at each request."""
        return self._client(1)

    @cached_property
    def _signing(self) -> Any:
        """A client that signs URLs with version 4, which every region accepts; boto3's default is older for some."""
        return self._client(1, signature_version="s3v4")

    def link(self, key: str, seconds: float, content_type: str) -> str:
        """A URL from which anybody can read the object for ``seconds`` (at most a week). Sends no request."""
        from botocore.exceptions import BotoCoreError

        what = {"Bucket": self._bucket, "Key": self._prefix + key, "ResponseContentType": content_type}
        try:
            return str(self._signing.generate_presigned_url("get_object", what, ExpiresIn=int(seconds)))
        except BotoCoreError as error:
            raise StoreError(f"store {self.url}: no URL of {key} can be signed ({_short(error)}).") from error

    def check_bucket(self) -> None:
        """Raises StoreError if the bucket cannot be reached, or keeps versions (then nothing could be erased)."""
        try:
            status = self._patient.get_bucket_versioning(Bucket=self._bucket).get("Status")
        except Exception as error:
            raise StoreError(
                f"store: {self._where} cannot be used ({_short(error)}). "
                + (_clock(error) or "Check endpoint_url, the keys, and that the bucket exists.")
            ) from error
        if status == "Enabled":
            raise StoreError(
                f"store: {self._where} keeps versions, so a take-down could not erase anything. "
                "Use a bucket without versioning."
            )

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def _call(self, name: str, key: str, **arguments: Any) -> Any:
        return self._ask(name, key, Key=self._prefix + key, **arguments)

    def _ask(self, name: str, what: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply = getattr(self._brief if self._gone else self._patient, name)(Bucket=self._bucket, **arguments)
        except ClientError as error:
            code = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
            self._gone = code >= 500
            if code == 404 and error.response["Error"].get("Code") != "NoSuchBucket":
                raise NotFoundError(f"store {self.url}: no object {what}.") from error
            if code == 416 or (code in {409, 412} and "IfNoneMatch" in arguments):
                raise  # the caller handles these
            fix = _clock(error) or (_AGAIN if self._gone else "Check endpoint_url, the keys, and what they may do.")
            raise StoreError(f"store {self.url}: {name} {what} failed ({_short(error)}). {fix}") from error
        except BotoCoreError as error:
            self._gone = True
            raise StoreError(f"store {self.url}: {name} {what} failed ({_short(error)}). {_AGAIN}") from error
        self._gone = False
        return reply

    def put_if_absent(self, key: str, data: Content) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(_CONFLICT_TRIES):
            if not isinstance(data, bytes):
                data.seek(0)
            try:
                self._call("put_object", key, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") == 412:
                    try:  # our own write, whose reply was lost, looks like another's: compare the bytes
                        return holds(self, key, data)
                    except NotFoundError:
                        return False
                time.sleep(0.05 * 2**attempt)
        raise StoreError(f"store {self.url}: {key} stayed in conflict with other writers. Run again to go on.")

    def replace(self, key: str, data: bytes) -> None:
        self._call("put_object", key, Body=data)

    def copy(self, key: str, to: str) -> None:
        self._call("copy_object", to, CopySource={"Bucket": self._bucket, "Key": self._prefix + key})

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        if length == 0:
            return b""
        arguments = {}
        if start or length is not None:
            arguments["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        for attempt in range(4):
            try:
                reply = self._call("get_object", key, **arguments)
            except ClientError:  # 416: the object ends before the range begins
                return b""
            try:
                return bytes(reply["Body"].read())
            except (
                BotoCoreError,
                ClientError,
                OSError,
            ) as error:  # the body was cut off; botocore retries only up to the headers
                if attempt == 3:
                    raise StoreError(
                        f"store {self.url}: {key} cannot be read whole ({_short(error)}). {_AGAIN}"
                    ) from error
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        objects = (item for item in self._listed(prefix, after) if item.key.encode() > after.encode())
        yield from sorted(objects, key=lambda listed: listed.key.encode()) if ordered else objects

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        arguments: dict[str, Any] = {"Prefix": self._prefix + prefix}
        # SeaweedFS lists folder by folder, "a/b" before "a-b". So ``list`` sorts the objects, and StartAfter is sent
        # only where SeaweedFS's order and ours agree on what lies behind ``after``.
        if after and min(after.removeprefix(prefix), default="/") >= "/":
            arguments["StartAfter"] = self._prefix + after
        while True:
            page = self._ask("list_objects_v2", prefix, **arguments)
            for item in page.get("Contents", []):
                key, written = item["Key"][len(self._prefix) :], item["LastModified"].timestamp()
                yield Listed(key, item["Size"], item.get("ETag", ""), written)
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def age(self, key: str) -> float:
        reply = self._call("head_object", key)
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float(max(0.0, (now - reply["LastModified"]).total_seconds()))


def _clock(error: BaseException) -> str:
    """The fix, if this machine's clock caused the error; else ""."""
    skewed = "RequestTimeTooSkewed" in str(error)
    return "S3 takes nothing that is signed 15 minutes too early or late: set this machine's clock." if skewed else ""


def _date(text: str) -> datetime:
    """A date in either form that S3 writes: ISO 8601 in bodies, RFC 9110 in headers."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return parsedate_to_datetime(text)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
