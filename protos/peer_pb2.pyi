from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    ACCEPTED: _ClassVar[Code]
    BUSY: _ClassVar[Code]
    STALE: _ClassVar[Code]
    WRONG_VERSION: _ClassVar[Code]
    WRONG_RUN: _ClassVar[Code]
    WRONG_LAYOUT: _ClassVar[Code]
    NOT_MY_NEIGHBOUR: _ClassVar[Code]
    MALFORMED: _ClassVar[Code]
    NOT_FINITE: _ClassVar[Code]
    TOO_LARGE: _ClassVar[Code]
    IMPLAUSIBLE: _ClassVar[Code]
CODE_UNSPECIFIED: Code
ACCEPTED: Code
BUSY: Code
STALE: Code
WRONG_VERSION: Code
WRONG_RUN: Code
WRONG_LAYOUT: Code
NOT_MY_NEIGHBOUR: Code
MALFORMED: Code
NOT_FINITE: Code
TOO_LARGE: Code
IMPLAUSIBLE: Code

class Frame(_message.Message):
    __slots__ = ("header", "body", "view")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    header: Header
    body: bytes
    view: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., body: _Optional[bytes] = ..., view: _Optional[bytes] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("version", "run", "plan", "layout", "kind", "number", "numbers", "vectors", "dtype", "size_bytes", "checksum", "view_bytes")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    VIEW_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: str
    plan: str
    layout: str
    kind: str
    number: int
    numbers: _containers.ScalarMap[str, float]
    vectors: _containers.RepeatedScalarFieldContainer[str]
    dtype: str
    size_bytes: int
    checksum: int
    view_bytes: int
    def __init__(self, version: _Optional[int] = ..., run: _Optional[str] = ..., plan: _Optional[str] = ..., layout: _Optional[str] = ..., kind: _Optional[str] = ..., number: _Optional[int] = ..., numbers: _Optional[_Mapping[str, float]] = ..., vectors: _Optional[_Iterable[str]] = ..., dtype: _Optional[str] = ..., size_bytes: _Optional[int] = ..., checksum: _Optional[int] = ..., view_bytes: _Optional[int] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("standings",)
    STANDINGS_FIELD_NUMBER: _ClassVar[int]
    standings: _containers.RepeatedCompositeFieldContainer[Standing]
    def __init__(self, standings: _Optional[_Iterable[_Union[Standing, _Mapping]]] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("name", "active", "counter", "left", "address", "doubted")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DOUBTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    active: int
    counter: int
    left: bool
    address: str
    doubted: int
    def __init__(self, name: _Optional[str] = ..., active: _Optional[int] = ..., counter: _Optional[int] = ..., left: _Optional[bool] = ..., address: _Optional[str] = ..., doubted: _Optional[int] = ...) -> None: ...

class Stranger(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Introduction(_message.Message):
    __slots__ = ("code", "name", "run", "plan")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    code: Code
    name: str
    run: str
    plan: bytes
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., name: _Optional[str] = ..., run: _Optional[str] = ..., plan: _Optional[bytes] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("version", "run", "plan", "layout", "pace")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: str
    plan: str
    layout: str
    pace: Pace
    def __init__(self, version: _Optional[int] = ..., run: _Optional[str] = ..., plan: _Optional[str] = ..., layout: _Optional[str] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("step_seconds", "unit_seconds")
    class StepSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UNIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    step_seconds: _containers.ScalarMap[str, float]
    unit_seconds: float
    def __init__(self, step_seconds: _Optional[_Mapping[str, float]] = ..., unit_seconds: _Optional[float] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("code", "pace", "neighbours")
    CODE_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    code: Code
    pace: Pace
    neighbours: int
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ..., neighbours: _Optional[int] = ...) -> None: ...
