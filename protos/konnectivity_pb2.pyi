from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PacketType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIAL_REQ: _ClassVar[PacketType]
    DIAL_RSP: _ClassVar[PacketType]
    CLOSE_REQ: _ClassVar[PacketType]
    CLOSE_RSP: _ClassVar[PacketType]
    DATA: _ClassVar[PacketType]
    DIAL_CLS: _ClassVar[PacketType]
    DRAIN: _ClassVar[PacketType]
DIAL_REQ: PacketType
DIAL_RSP: PacketType
CLOSE_REQ: PacketType
CLOSE_RSP: PacketType
DATA: PacketType
DIAL_CLS: PacketType
DRAIN: PacketType

class Packet(_message.Message):
    __slots__ = ("type", "dial_request", "dial_response", "data", "close_request", "close_response", "close_dial")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DIAL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DIAL_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLOSE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CLOSE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_DIAL_FIELD_NUMBER: _ClassVar[int]
    type: PacketType
    dial_request: DialRequest
    dial_response: DialResponse
    data: Data
    close_request: CloseRequest
    close_response: CloseResponse
    close_dial: CloseDial
    def __init__(self, type: _Optional[_Union[PacketType, str]] = ..., dial_request: _Optional[_Union[DialRequest, _Mapping]] = ..., dial_response: _Optional[_Union[DialResponse, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., close_request: _Optional[_Union[CloseRequest, _Mapping]] = ..., close_response: _Optional[_Union[CloseResponse, _Mapping]] = ..., close_dial: _Optional[_Union[CloseDial, _Mapping]] = ...) -> None: ...

class DialRequest(_message.Message):
    __slots__ = ("protocol", "address", "random")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    address: str
    random: int
    def __init__(self, protocol: _Optional[str] = ..., address: _Optional[str] = ..., random: _Optional[int] = ...) -> None: ...

class DialResponse(_message.Message):
    __slots__ = ("error", "connect_id", "random")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONNECT_ID_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    error: str
    connect_id: int
    random: int
    def __init__(self, error: _Optional[str] = ..., connect_id: _Optional[int] = ..., random: _Optional[int] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("connect_id", "data")
    CONNECT_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    connect_id: int
    data: bytes
    def __init__(self, connect_id: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CloseRequest(_message.Message):
    __slots__ = ("connect_id",)
    CONNECT_ID_FIELD_NUMBER: _ClassVar[int]
    connect_id: int
    def __init__(self, connect_id: _Optional[int] = ...) -> None: ...

class CloseResponse(_message.Message):
    __slots__ = ("error", "connect_id")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONNECT_ID_FIELD_NUMBER: _ClassVar[int]
    error: str
    connect_id: int
    def __init__(self, error: _Optional[str] = ..., connect_id: _Optional[int] = ...) -> None: ...

class CloseDial(_message.Message):
    __slots__ = ("random",)
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    random: int
    def __init__(self, random: _Optional[int] = ...) -> None: ...
