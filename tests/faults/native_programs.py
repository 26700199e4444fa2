"""Programs whose libraries write below Python, from C++ and Rust."""

from __future__ import annotations

NATIVE = {
    "zarr": """
import numpy, zarr
from zarr.storage import LocalStore
a = zarr.create_array(LocalStore("zarr"), shape=(64, 8), chunks=(4, 8), shards=(32, 8), dtype="float32")
a[:] = numpy.arange(512, dtype="float32").reshape(64, 8)
""",
    "obstore": """
import obstore
from obstore.store import LocalStore
store = LocalStore("obstore", mkdir=True)
obstore.put(store, "a/b", b"1" * 1000)
obstore.put(store, "a/once", b"2" * 1000, mode="create")
obstore.rename(store, "a/b", "a/c"); obstore.copy(store, "a/c", "a/d"); obstore.delete(store, "a/once")
obstore.put(store, "a/large", b"3" * (12 << 20), use_multipart=True, chunk_size=5 << 20)
""",
    "zarr_obstore": """
import os
import numpy, zarr
from obstore.store import LocalStore
from zarr.storage import ObjectStore
store = ObjectStore(LocalStore("both", mkdir=True))
a = zarr.create_array(store, shape=(64,), chunks=(8,), shards=(32,), dtype="int32")
a[:] = numpy.arange(64)
os._exit(0)  # a thread of obstore's that wants to say that it is done, while Python ends, would abort the process
""",
    "tensorstore": """
import numpy, tensorstore
store = {"driver": "file", "path": "tensorstore/"}
grid = {"name": "regular", "configuration": {"chunk_shape": [16]}}
metadata = {"shape": [64], "data_type": "int32", "chunk_grid": grid}
a = tensorstore.open({"driver": "zarr3", "kvstore": store, "metadata": metadata}, create=True).result()
a[...] = numpy.arange(64, dtype="int32")
""",
    "safetensors": """
import numpy
from safetensors.numpy import save_file
save_file({"a": numpy.ones(1000)}, "a.safetensors")
""",
}
