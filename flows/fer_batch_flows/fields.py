"""Types of parameters that several flows have, with their limits."""

from typing import Annotated

from pydantic import Field

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
Seconds = Annotated[float, Field(gt=0)]
