"""Files that pth_test.cc reads, written by Python's own torch.save, and its check of what we write.

usage:
  torch_files.py write LAYOUT.tsv FOLDER            state_dicts in every form, and hostile files
  torch_files.py safetensors LAYOUT.tsv IN          checks a file of ours, prints its metadata
  torch_files.py reload LAYOUT.tsv IN.pth OUT.pth   loads IN strictly into modules, saves as OUT

Value i of tensor k is ((31 k + i) mod 97 - 48) / 64: exact in every floating type.
"""
import collections
import json
import os
import pickle
import sys
import zipfile

import torch


def read_layout(path):
    rows = [line.rstrip("\n").split("\t") for line in open(path)]
    return [(name, [int(side) for side in shape.split(",")]) for name, shape in rows]


def make_state(layout):
    state = collections.OrderedDict()
    for k, (name, shape) in enumerate(layout):
        count = 1
        for side in shape:
            count *= side
        values = (torch.arange(count, dtype=torch.int64) + 31 * k) % 97 - 48
        state[name] = (values.double() / 64).float().view(shape)
    return state


def module_tree(layout):
    """Modules nested as the names say, with zero parameters of the shapes."""
    root = torch.nn.Module()
    for name, shape in layout:
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, torch.nn.Parameter(torch.zeros(shape)))
    return root


def mapped(state, rename=lambda name: name, convert=lambda tensor: tensor):
    return collections.OrderedDict((rename(name), convert(t)) for name, t in state.items())


def in_one_storage(state):
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    views, at = collections.OrderedDict(), 0
    for name, tensor in state.items():
        views[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    return views


def transposed(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() > 1 else tensor


def write_good(state, folder):
    def save(name, thing, **options):
        torch.save(thing, os.path.join(folder, name + ".pth"), **options)

    unet = collections.OrderedDict((n, t) for n, t in state.items() if n.startswith("unet."))
    module = module_tree([(name, list(tensor.shape)) for name, tensor in state.items()])
    module.load_state_dict(state)
    save("zip", state)
    save("legacy", state, _use_new_zipfile_serialization=False)
    save("protocol_4", state, pickle_protocol=4)
    save("legacy_protocol_4", state, pickle_protocol=4, _use_new_zipfile_serialization=False)
    save("half", mapped(state, convert=lambda t: t.half()))
    half = mapped(state, convert=lambda t: t.half())
    save("legacy_half", half, _use_new_zipfile_serialization=False)
    save("bfloat16", mapped(state, convert=lambda t: t.bfloat16()))
    save("double", mapped(state, convert=lambda t: t.double()))
    save("plain_dict", dict(state))
    save("metadata", module.state_dict())  # an OrderedDict with the attribute _metadata
    save("parameters", collections.OrderedDict(module.named_parameters()))
    save("data_parallel", mapped(state, rename=lambda name: "module." + name))
    save("checkpoint", {"epoch": 3, "lr": 1e-4, "state_dict": state, "note": None, "steps": [1, 2]})
    save("one_storage", in_one_storage(state))
    save("legacy_one_storage", in_one_storage(state), _use_new_zipfile_serialization=False)
    save("strided", mapped(state, convert=transposed))
    save("reversed", collections.OrderedDict(reversed(state.items())))
    save("unet_with_prefix", unet)
    save("unet_alone", mapped(unet, rename=lambda name: name[len("unet.") :]))

    wrong = mapped(state)
    del wrong["fc_rot.bias"]
    wrong["segmentation.weight"] = torch.zeros(3)
    wrong["out_flow.weight"] = torch.zeros(3, 4, 1, 1, 1)
    save("mismatched", wrong)


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_forbidden(state, folder):
    command = "touch '" + os.path.join(folder, "it_ran") + "'"
    for zip_format in (True, False):
        prefix = "forbidden_" if zip_format else "forbidden_legacy_"

        def save(name, thing):
            path = os.path.join(folder, prefix + name + ".pth")
            torch.save(thing, path, _use_new_zipfile_serialization=zip_format)

        save("command", {**state, "z": Runs(command)})
        save("module", torch.nn.Conv3d(1, 1, 3))
        save("numpy", {"weight": torch.zeros(2).numpy()})
        save("set", {"names": {1, 2}})


class Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class Tensor:
    """A tensor as torch.save describes it, whatever the numbers."""

    def __init__(self, size, stride, offset=0, key="0", count=4):
        self.storage = key if isinstance(key, Storage) else Storage(key, count)
        self.arguments = (offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (self.storage, *self.arguments)


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return "storage", torch.FloatStorage, thing.key, "cpu", thing.count
        return None


def write_hostile(folder):
    def archive(name, tensors, data=b"\0" * 16, method=zipfile.ZIP_STORED, extra=()):
        path = os.path.join(folder, "hostile_" + name + ".pth")
        with zipfile.ZipFile(path, "w", method) as out:
            with out.open("archive/data.pkl", "w") as file:
                Pickler(file, protocol=2).dump(tensors)
            out.writestr("archive/data/0", data)
            for entry, content in extra:
                out.writestr("archive/" + entry, content)

    def overlapping(name, count, size):
        """`count` entries of `size` bytes that are one and the same."""
        path = os.path.join(folder, "hostile_" + name + ".pth")
        values = size // 4
        tensors = {str(i): Tensor((values,), (1,), key=str(i), count=values) for i in range(count)}
        with zipfile.ZipFile(path, "w") as out:
            with out.open("archive/data.pkl", "w") as file:
                Pickler(file, protocol=2).dump(tensors)
            out.writestr("archive/data/0", b"\0" * size)
            real = out.filelist[-1]
            for i in range(1, count):
                copy = zipfile.ZipInfo("archive/data/" + str(i))
                for field in ("compress_size", "file_size", "CRC", "header_offset"):
                    setattr(copy, field, getattr(real, field))
                out.filelist.append(copy)

    archive("shape_overflow", {"t": Tensor((2**40, 2**40), (0, 0))})
    archive("shape_huge", {"t": Tensor((2**62,), (0,))})
    archive("shape_beyond_64_bits", {"t": Tensor((2**80,), (1,))})
    archive("shape_negative", {"t": Tensor((-4,), (1,))})
    archive("stride_negative", {"t": Tensor((2,), (-1,))})
    archive("stride_overflow", {"t": Tensor((2, 2), (2**62, 2**62))})
    archive("stride_beyond", {"t": Tensor((2,), (4,))})
    archive("offset_beyond", {"t": Tensor((2,), (1,), offset=3)})
    archive("offset_overflow", {"t": Tensor((2,), (1,), offset=2**63 - 1)})
    archive("rank_mismatch", {"t": Tensor((2, 2), (1,))})
    archive("expanded", {"t": Tensor((2**20,), (0,))})
    archive("promise", {"t": Tensor((8,), (1,), count=8)})
    archive("promise_huge", {"t": Tensor((2**40,), (1,), count=2**62)})
    archive("no_data", {"t": Tensor((4,), (1,), key="7")})
    archive("two_counts", {"a": Tensor((1,), (1,), count=1), "t": Tensor((4,), (1,), count=4)})
    archive("big_endian", {"t": Tensor((4,), (1,))}, extra=[("byteorder", "big")])
    bomb = b"\0" * 10**7
    archive("compressed", {"t": Tensor((4,), (1,))}, data=bomb, method=zipfile.ZIP_DEFLATED)
    archive("two_of_one_name", {"t": Tensor((4,), (1,))}, extra=[("data/0", b"")])
    archive("script", {"t": Tensor((4,), (1,))}, extra=[("constants.pkl", b"")])
    archive("not_tensors", {"t": 3})
    archive("number_for_a_name", {3: Tensor((4,), (1,))})
    archive("list", [Tensor((4,), (1,))])
    long_key = "k" * 10**6
    archive("key_of_megabytes", [Tensor((1,), (1,), key=Storage(long_key, 1)) for _ in range(1000)])
    archive("nested", nested_list(3000))
    shared = Storage("0", 10**5)
    views = {str(i): Tensor((10, 10**4), (1, 10), key=shared) for i in range(500)}
    archive("many_views", views, data=b"\0" * 4 * 10**5)
    archive("many_values", {str(i): None for i in range(300000)})
    overlapping("overlapping", 50, 10**6)


def nested_list(depth):
    sys.setrecursionlimit(20 * depth)
    thing = []
    for _ in range(depth):
        thing = [thing]
    return thing


def check_safetensors(state, path):
    """Reads the format as its specification has it: u64 size, JSON, data without holes."""
    data = open(path, "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__")
    assert start % 8 == 0, start
    assert sorted(header) == sorted(state)
    covered = 0
    for name, tensor in state.items():
        entry = header[name]
        begin, end = entry["data_offsets"]
        assert (entry["dtype"], entry["shape"]) == ("F32", list(tensor.shape)), name
        assert data[start + begin : start + end] == tensor.numpy().tobytes(), name
        covered += end - begin
    assert start + covered == len(data)
    print(json.dumps(metadata, sort_keys=True))


def main():
    verb, layout_path, *paths = sys.argv[1:]
    layout = read_layout(layout_path)
    if verb == "write":
        state = make_state(layout)
        write_good(state, paths[0])
        write_forbidden(state, paths[0])
        write_hostile(paths[0])
    elif verb == "safetensors":
        check_safetensors(make_state(layout), paths[0])
    else:
        state = torch.load(paths[0])
        assert type(state) is collections.OrderedDict, type(state)
        assert [(name, list(tensor.shape)) for name, tensor in state.items()] == layout
        assert all(tensor.dtype == torch.float32 for tensor in state.values())
        module = module_tree(layout)
        module.load_state_dict(state, strict=True)
        torch.save(module.state_dict(), paths[1])


main()
