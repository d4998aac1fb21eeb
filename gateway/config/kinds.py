"""The kinds of value that keys of the config take: spelling in, value out, spelling back."""

# No postponed annotations here: pydantic evaluates them.
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from gateway.config import addresses, places, scalars
from gateway.supervision.listeners import Address

_DURATION = PlainSerializer(scalars.duration_text)
Duration = Annotated[float, scalars.duration("0s"), _DURATION]  # seconds
Period = Annotated[float, scalars.duration("1ms"), _DURATION]  # seconds, never 0
Retention = Annotated[float, scalars.duration("1h"), _DURATION]
Timeout = Annotated[float, scalars.duration("1ms", "10m"), _DURATION]

_PERCENT = PlainSerializer(scalars.percent_text)
Percent = Annotated[Decimal, scalars.spelled(scalars.parse_percent, scalars.PERCENT), _PERCENT]
StageShare = Annotated[Decimal, scalars.spelled(scalars.parse_part, scalars.PERCENT), _PERCENT]
Sample = Annotated[Decimal, scalars.spelled(scalars.parse_sample, scalars.PERCENT), _PERCENT]
Relative = Annotated[Decimal, scalars.spelled(scalars.parse_relative, scalars.RELATIVE), _PERCENT]
SizeText = Annotated[str, Field(pattern=f"^{scalars.SIZE}$")]
Size = Annotated[
    int,
    PlainValidator(
        scalars.parse_size, json_schema_input_type=SizeText | Annotated[int, Field(ge=1, le=scalars.MAX_SIZE)]
    ),
    PlainSerializer(lambda size: int(text) if (text := scalars.size_text(size)).isdigit() else text),
]
Space = Annotated[int, scalars.spelled(scalars.parse_space, scalars.SIZE), PlainSerializer(scalars.size_text)]
Memory = Annotated[int, scalars.spelled(scalars.parse_memory, scalars.SIZE), PlainSerializer(scalars.size_text)]

Name = Annotated[str, scalars.name()]
EndpointName = Annotated[str, scalars.name(reserved=frozenset({"v1", "v2"}))]
StageName = Annotated[str, scalars.name(scalars.STAGE, frozenset({"watch"}))]
Header = Annotated[
    str,
    scalars.spelled(places.parse_header, places.HEADER),
    PlainSerializer(lambda header: f"header:{header}"),
]
Prediction = Annotated[
    places.Prediction, scalars.spelled(places.parse_prediction, places.PREDICTION), PlainSerializer(str)
]
SetHeader = Annotated[str, scalars.spelled(places.parse_set_header, places.FIELD)]
Template = Annotated[str, scalars.spelled(places.parse_template, places.TEMPLATE)]
Secret = Annotated[str, scalars.spelled(places.parse_secret, places.TEMPLATE)]
Key = Annotated[str, scalars.spelled(places.parse_key, places.TEMPLATE)]
ModelName = Annotated[str, scalars.spelled(scalars.parse_model, scalars.LABEL)]
Reading = Annotated[places.Reading, scalars.spelled(places.parse_reading, places.READING), PlainSerializer(str)]
Label = Annotated[str, scalars.spelled(scalars.parse_label, scalars.LABEL)]

Listen = Annotated[Address, scalars.spelled(addresses.parse_listen, addresses.LISTEN), PlainSerializer(str)]
UrlText = Annotated[str, Field(pattern=f"^{addresses.URL}$")]
UrlList = Annotated[list[UrlText], Field(min_length=1, max_length=addresses.MOST_URLS)]
Urls = Annotated[
    tuple[str, ...],
    PlainValidator(addresses.parse_urls, json_schema_input_type=UrlText | UrlList),
    PlainSerializer(lambda urls: urls[0] if len(urls) == 1 else list(urls)),
]
UrlPath = Annotated[str, scalars.spelled(addresses.parse_path, addresses.PATH)]
Retries = Annotated[int, Field(ge=0, le=5)]
StoreUrl = Annotated[str, scalars.spelled(addresses.parse_store, addresses.STORE)]
File = Annotated[Path, PlainValidator(addresses.parse_file, json_schema_input_type=str)]
Folder = Annotated[Path, PlainValidator(addresses.parse_folder, json_schema_input_type=str)]

Digest = Annotated[str, scalars.spelled(scalars.parse_digest, scalars.DIGEST)]
Threads = Annotated[int, Field(ge=1, le=64)]
Batch = Annotated[int, Field(ge=1, le=1024)]

Workers = Annotated[int | Literal["auto"], scalars.number_or_auto(256)]
Connections = Annotated[int | Literal["auto"], scalars.number_or_auto(1 << 20)]
Requests = Annotated[int, Field(ge=1, le=1 << 16)]
Network = Annotated[
    addresses.Network | Literal["unix"],
    scalars.spelled(addresses.parse_network, addresses.NETWORK),
    PlainSerializer(str),
]
Version = Annotated[int, PlainValidator(scalars.parse_version, json_schema_input_type=Literal[1])]

Alpha = Annotated[float, Field(gt=0, le=0.5)]
Positive = Annotated[float, Field(gt=0)]
Bounds = Annotated[tuple[float, float], Field(strict=False)]
Effect = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of the file: strict, immutable, no keys but its own."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )
