"""The object store in an S3 bucket, or any service that honours ``If-None-Match`` on PUT.

boto3's ``put_object`` is called directly, since s3transfer does not pass ``IfNoneMatch`` on. Retries bridge short
outages (a restarting server answers 500 for some seconds); a longer outage raises StoreError.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from typing import Any
from urllib.parse import urlsplit

from taskgalaxy_ops.errors import ForbiddenError, NotFoundError, StoreError, UnreadableError
from taskgalaxy_ops.storage.base import Content, Listed, holds
from taskgalaxy_ops.storage.s3_services import S3Service, service

_CONFLICT_TRIES = 8  # tries after 409: another conditional write is in progress
_SLOW_TRIES = 6  # rounds of tries where the service asks for fewer requests
_TRIES = 10  # with botocore's back-off they last longer than a server's restart
_REPLY_SECONDS = 20  # a request that gets no byte for so long is tried again
_AGAIN = "Is the S3 server up? Run again to go on."
_RIGHTS = "Check endpoint_url, the keys, and what they may do."
_SLOWED = "The service asks for fewer requests a second: run again later, or with fewer workers."

# What the error codes of the dialects mean; statuses decide where a code is not among these.
_EXISTS = {"PreconditionFailed", "ConditionNotMet", "ObjectAlreadyExists", "FileAlreadyExists", "KeyAlreadyExists"}
_NO_CONDITION = {"NotImplemented", "UnsupportedOperation", "InvalidArgument", "ExcessHeaderValues"}  # refused header
_NO_VERSIONS = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "NoSuchVersioningConfiguration"}
_DENIED = {"AccessDenied", "Forbidden", "403", "AllAccessDisabled", "UnauthorizedAccess"}
_SLOW = {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded", "429"}
_LONGEST_ERROR = 10_000  # bytes
_ERROR_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?<Error(?:\s[^>]*)?>.*?<Code>([^<]{1,100})</Code>", re.S)
_NOT_OF_ONE_OBJECT = {  # with these no object can be read
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("RequestTimeTooSkewed", "NoSuchBucket", "AccountProblem", "InvalidSecurity", "InvalidBucketName", "NotSignedUp"),
    *("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed", "UserSuspended"),
    *("InvalidRegion", "IllegalLocationConstraintException", "RequestTimeout", "RequestExpired", "400", "401"),
}
_WHY_UNREADABLE = {
    "InvalidObjectState": "it is archived: restore it, or leave it out",
    "ObjectArchived": "it is archived: restore it, or leave it out",
}
_ENCRYPTED = "it is encrypted with a key that these credentials may not use"


@cache
def service_descriptions() -> Any:
    """Botocore's descriptions of services, S3's read already: once, since that takes as long as a hundred requests."""
    import botocore.session

    loader = botocore.session.get_session().get_component("data_loader")
    loader.load_service_model("s3", "service-2")
    return loader


class S3Store:
    """A store under a prefix of one bucket. ``options`` are boto3's client arguments (endpoint, region, keys).

    addressing: "path" or "virtual" says where the bucket's name stands; None: as boto3 decides.
    """

    def __init__(self, bucket: str, prefix: str = "", *, addressing: str | None = None, **options: Any) -> None:
        self._bucket = bucket
        self._addressing = addressing
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._options = {"region_name": "us-east-1", **options}
        self._where = f"bucket {bucket!r} at {options.get('endpoint_url') or 'AWS'}"
        self._patient = self._client(_TRIES)
        self._gone = False  # the last request failed at its last try: no reply, or a server error
        self._server = ""  # the Server header of the last reply
        self._written_version: str | None = None  # the version of what was written last, if the bucket keeps versions

    def _client(self, tries: int, **more: Any) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        style: Any = {"addressing_style": self._addressing} if self._addressing else None
        config = Config(
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=5,
            read_timeout=_REPLY_SECONDS,
            max_pool_connections=64,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3=style,
            **more,
        )
        session = botocore.session.get_session()
        session.register_component("data_loader", service_descriptions())
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

    @property
    def service(self) -> S3Service:
        """The service, as far as its address or its replies tell."""
        endpoint = self._options.get("endpoint_url")
        return service(urlsplit(endpoint).hostname or "" if endpoint else "", self._server)

    def check_bucket(self) -> str:
        """Raises StoreError if the bucket cannot be reached, or keeps versions (then nothing could be erased).

        Returns a warning where the service does not say whether it keeps versions, because we may not ask; else "".
        """
        from botocore.exceptions import ClientError

        try:
            reply = self._patient.get_bucket_versioning(Bucket=self._bucket)
        except ClientError as error:
            code, status = _code(error), _status(error)
            self._heard(error.response)
            if code in _NO_VERSIONS or status in {405, 501}:
                return ""  # a service without versions
            if status < 500 and code not in _NOT_OF_ONE_OBJECT:
                return (
                    f"store {self.url}: whether the bucket keeps versions could not be looked up ({_short(error)}). If "
                    "it does, a take-down erases nothing. The right s3:GetBucketVersioning lets it be looked up."
                )
            raise self._unusable(error) from error
        except Exception as error:
            raise self._unusable(error) from error
        self._heard(reply)
        if reply.get("Status") == "Enabled":
            raise self._keeps_versions()
        return ""

    def check_written(self) -> None:
        """Raises StoreError if the reply to the last write names a version: then the bucket keeps them."""
        if self._written_version not in {None, "", "null"}:
            raise self._keeps_versions()

    def _unusable(self, error: BaseException) -> StoreError:
        fix = _clock(error) or "Check endpoint_url, the keys, and that the bucket exists."
        return StoreError(f"store: {self._where} cannot be used ({_short(error)}). {fix}")

    def _keeps_versions(self) -> StoreError:
        return StoreError(
            f"store: {self._where} keeps versions, so a take-down could not erase anything. "
            f"Use a bucket without versioning. {self.service.versions}"
        )

    def _heard(self, reply: Any) -> None:
        self._server = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("server", self._server)

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def _call(self, name: str, key: str, **arguments: Any) -> Any:
        return self._ask(name, key, Key=self._prefix + key, **arguments)

    def _ask(self, name: str, what: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply = self._sent(name, arguments)
        except ClientError as error:
            self._heard(error.response)
            code, status = _code(error), _status(error)
            slowed = code in _SLOW or status == 429
            self._gone = status >= 500 and status != 501 and not slowed
            if status == 404 and code != "NoSuchBucket":
                raise NotFoundError(f"store {self.url}: no object {what}.") from error
            if status == 416 or ("IfNoneMatch" in arguments and (_exists(error) or _refused(error) or status == 409)):
                raise  # the caller handles these
            told = f"store {self.url}: {name} {what} failed ({_short(error)})."
            if 400 <= status < 500 and not slowed and code not in _NOT_OF_ONE_OBJECT:
                self._one_object(name, what, error, told)
            fix = _clock(error) or (_SLOWED if slowed else _AGAIN if self._gone else _RIGHTS)
            raise StoreError(f"{told} {fix}") from error
        except BotoCoreError as error:
            self._gone = True
            raise StoreError(f"store {self.url}: {name} {what} failed ({_short(error)}). {_AGAIN}") from error
        self._gone = False
        self._heard(reply)
        return reply

    def _sent(self, name: str, arguments: dict[str, Any]) -> Any:
        """The reply. A service that asks for fewer requests is waited for once botocore's own tries have run out."""
        from botocore.exceptions import ClientError

        for attempt in range(_SLOW_TRIES):
            try:
                return getattr(self._brief if self._gone else self._patient, name)(Bucket=self._bucket, **arguments)
            except ClientError as error:
                # botocore gives up early where many requests in parallel have used up its quota of retries.
                early = error.response["ResponseMetadata"].get("RetryAttempts", 0) < _TRIES - 1
                if self._gone or not early or attempt == _SLOW_TRIES - 1 or _code(error) not in _SLOW:
                    raise
                time.sleep(min(8.0, 0.5 * 2**attempt))
        raise AssertionError("unreachable")

    def _one_object(self, name: str, key: str, error: Any, told: str) -> None:
        """Raise what a refusal of one object means, if it concerns one object alone."""
        if name in {"get_object", "head_object"}:
            # Whoever may not list every object gets "denied" for one that is not there.
            if _code(error) in _DENIED and not any(each.key == key for each in self._listed(key, "")):
                raise NotFoundError(f"store {self.url}: no object {key}.") from error
            encrypted = "KMS" in told or "encrypt" in told.lower()
            why = _ENCRYPTED if encrypted else _WHY_UNREADABLE.get(_code(error), "check what the keys may do")
            raise UnreadableError(f"{told} {why[0].upper()}{why[1:]}.", f"{_code(error)}: {why}") from error
        if name in {"put_object", "copy_object", "delete_object"} and _code(error) in _DENIED:
            raise ForbiddenError(f"{told} {_RIGHTS}") from error

    def put_if_absent(self, key: str, data: Content) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(_CONFLICT_TRIES):
            if not isinstance(data, bytes):
                data.seek(0)
            try:
                self._note_version(self._call("put_object", key, Body=data, IfNoneMatch="*"))
                return True
            except ClientError as error:
                if _exists(error):
                    try:  # our own write, whose reply was lost, looks like another's: compare the bytes
                        return holds(self, key, data)
                    except NotFoundError:
                        return False
                if _refused(error):
                    raise StoreError(
                        f"store {self.url}: it refuses If-None-Match ({_short(error)}), so two workers could overwrite "
                        f"each other. {self.service.conditional}"
                    ) from error
                time.sleep(0.05 * 2**attempt)
        raise StoreError(f"store {self.url}: {key} stayed in conflict with other writers. Run again to go on.")

    def _note_version(self, reply: Any) -> None:
        self._written_version = reply.get("VersionId")

    def replace(self, key: str, data: bytes) -> None:
        self._note_version(self._call("put_object", key, Body=data))

    def copy(self, key: str, to: str) -> None:
        self._call("copy_object", to, CopySource={"Bucket": self._bucket, "Key": self._prefix + key})

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        if length == 0:
            return b""
        arguments = {}
        if start or length is not None:
            arguments["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        problem: BaseException | str = ""
        for attempt in range(4):
            if attempt:
                time.sleep(0.2 * 2 ** (attempt - 1))
            try:
                reply = self._call("get_object", key, **arguments)
            except ClientError:  # 416: the object ends before the range begins
                return b""
            try:
                body = bytes(reply["Body"].read())
            except (BotoCoreError, ClientError, OSError) as error:
                problem = error  # the body was cut off; botocore retries only up to the headers
                continue
            if code := _error_document(body):
                problem = f"200 with an error in the body: {code}"
                continue
            if "Range" in arguments and reply["ResponseMetadata"].get("HTTPStatusCode") == 200:
                return body[start : None if length is None else start + length]  # it sends the whole for a range
            return body
        told = problem if isinstance(problem, str) else _short(problem)
        raise StoreError(f"store {self.url}: {key} cannot be read whole ({told}). {_AGAIN}") from (
            problem if isinstance(problem, BaseException) else None
        )

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
            if not page.get("NextContinuationToken"):
                raise StoreError(
                    f"store {self.url}: listing {prefix} stops in the middle, since the service knows no "
                    "ListObjectsV2. Update it, or use another."
                )
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def age(self, key: str) -> float:
        reply = self._call("head_object", key)
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float(max(0.0, (now - reply["LastModified"]).total_seconds()))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _exists(error: Any) -> bool:
    """Whether a conditional write was refused because there is an object: by status, or by error code."""
    return _status(error) in {304, 412} or _code(error) in _EXISTS


def _refused(error: Any) -> bool:
    """Whether a write was refused because the service has no conditional ones."""
    return _status(error) == 501 or (_status(error) == 400 and _code(error) in _NO_CONDITION)


def _error_document(body: bytes) -> str:
    """The error code, if a body is S3's error document; else ""."""
    if len(body) > _LONGEST_ERROR or b"<Error" not in body[:200]:
        return ""
    found = _ERROR_DOCUMENT.match(body)
    return found[1].decode("utf-8", "replace") if found else ""


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
