#!/usr/bin/python3
"""The peer of gvsl_training_bench: one GVSL step as a researcher writes it in plain PyTorch, NumPy and SciPy.

usage: training_bench.py SIZE BASE_WIDTH REPEAT THREADS [cpu|cuda [half]]

Same network, crop, batch of two pairs and losses; torch's own defaults. Augmentation on the host: rotation, scale
and a Gaussian-smoothed elastic field through scipy.ndimage.map_coordinates, local shuffling block by block, a Bezier
curve through numpy.interp, painted boxes; the usual ways (Models Genesis, batchgenerators). Prints what
gvsl_training_bench prints.
"""
import io
import statistics
import sys
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import nn
from torch.nn import functional as F


def block(before, after):
    groups = max(1, after // 8)
    return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.GroupNorm(groups, after), nn.LeakyReLU(0.2, True),
                         nn.Conv3d(after, after, 3, padding=1), nn.GroupNorm(groups, after), nn.LeakyReLU(0.2, True))


class Network(nn.Module):
    def __init__(self, base):
        super().__init__()
        widths = [base << level for level in range(5)]
        hidden = max(16, base // 2)
        self.down = nn.ModuleList([block(1, base)] + [block(widths[i], widths[i + 1]) for i in range(4)])
        self.up = nn.ModuleList([block(widths[4 - i] + widths[3 - i], widths[3 - i]) for i in range(4)])
        self.pair = block(2 * widths[4], widths[4] // 2)
        self.affine = nn.Linear(widths[4] // 2, 12)
        self.field = block(2 * base, hidden)
        self.flow = nn.Conv3d(hidden, 3, 3, padding=1)
        self.restore = nn.Sequential(nn.Conv3d(base, hidden, 3, padding=1), nn.GroupNorm(4, hidden),
                                     nn.LeakyReLU(0.2, True), nn.Conv3d(hidden, 1, 1))
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.eye(3, 4).flatten())
            self.flow.weight.mul_(1e-3)

    def features(self, x):
        skips = []
        for level, layer in enumerate(self.down):
            x = layer(x if level == 0 else F.max_pool3d(x, 2))
            skips.append(x)
        for level, layer in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
            x = layer(torch.cat([skips[3 - level], x], 1))
        return x, skips[4]

    def forward(self, a, b):
        dense_a, global_a = self.features(a)
        dense_b, global_b = self.features(b)
        both_ways = torch.cat([torch.cat([global_b, global_a], 1), torch.cat([global_a, global_b], 1)])
        there, back = self.pair(both_ways).mean((2, 3, 4)).chunk(2)
        matrix = self.affine(10 * (there - back)).view(-1, 3, 4)
        grid = F.affine_grid(matrix, b.shape, align_corners=True)
        moved = F.grid_sample(dense_b, grid, align_corners=True)
        flow = self.flow(self.field(torch.cat([moved, dense_a], 1)))
        shift = flow.permute(0, 2, 3, 4, 1).flip(4) * (2 / (b.shape[2] - 1))
        warped = F.grid_sample(b, grid + shift, align_corners=True)
        return warped, flow, self.restore(dense_a)


def ncc_loss(a, b):
    window = torch.ones(1, 1, 9, 9, 9, device=a.device)
    count = window.numel()

    def total(x):
        return F.conv3d(x, window, padding=4)

    sum_a, sum_b = total(a), total(b)
    cross = total(a * b) - sum_a * sum_b / count
    variance_a = total(a * a) - sum_a * sum_a / count
    variance_b = total(b * b) - sum_b * sum_b / count
    return 1 - (cross * cross / (variance_a * variance_b + 1e-5)).mean()


def smoothness(flow):
    return sum(flow.diff(dim=axis).pow(2).mean() for axis in (2, 3, 4)) / 3


def spatial(image, noise):
    size = image.shape[0]
    place = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float32)] * 3, indexing="ij")) - (size - 1) / 2
    turn = np.eye(3)
    for axis in range(3):
        angle = np.deg2rad(noise.uniform(-20, 20))
        u, v = (axis + 1) % 3, (axis + 2) % 3
        single = np.eye(3)
        single[u, u] = single[v, v] = np.cos(angle)
        single[u, v], single[v, u] = -np.sin(angle), np.sin(angle)
        turn = single @ turn
    place = np.tensordot(turn * noise.uniform(0.75, 1.25, 3), place, 1)
    for axis in range(3):
        place[axis] += gaussian_filter(noise.uniform(-1, 1, image.shape), 12, mode="constant") * 300
    return map_coordinates(image, place + (size - 1) / 2, order=1, mode="constant").astype(np.float32)


def distort(image, noise):
    size = image.shape[0]
    image = image.copy()
    for _ in range(5000):
        side = noise.integers(1, size // 10 + 1, 3)
        at = [noise.integers(0, size - s) for s in side]
        part = tuple(slice(a, a + s) for a, s in zip(at, side))
        window = image[part].flatten()
        noise.shuffle(window)
        image[part] = window.reshape(side)
    t = np.linspace(0, 1, 1000)
    x, y = (3 * (1 - t) ** 2 * t * p + 3 * (1 - t) * t ** 2 * q + t ** 3 for p, q in np.sort(noise.uniform(0, 1, (2, 2))))
    image = np.interp(image, x, y).astype(np.float32)
    for _ in range(5):
        side = noise.integers(size // 6, size // 3, 3)
        at = [noise.integers(0, size - s) for s in side]
        image[tuple(slice(a, a + s) for a, s in zip(at, side))] = noise.random(side, dtype=np.float32)
    return image


def augment(a, b, noise):
    """Two samples: A moved, its distorted copy, B moved."""
    moved = [[spatial(a[i], noise), spatial(b[i], noise)] for i in range(2)]
    distorted = [distort(pair[0], noise) for pair in moved]
    batch = [np.stack([pair[0] for pair in moved]), np.stack(distorted), np.stack([pair[1] for pair in moved])]
    return [torch.from_numpy(x)[:, None] for x in batch]


def main():
    size, base, repeat, threads = map(int, sys.argv[1:5])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    noise = np.random.default_rng(1)
    a, b = noise.random((2, 2, size, size, size), dtype=np.float32)

    device = sys.argv[5] if len(sys.argv) > 5 else "cpu"
    half = len(sys.argv) > 6 and sys.argv[6] == "half"

    def clock(work):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, result

    timed = [clock(lambda: augment(a, b, noise)) for _ in range(repeat)]
    augmenting = statistics.median(seconds for seconds, _ in timed) / 2
    images = timed[-1][1]
    stepping = whole = writing = 0.0
    if base > 0:
        network = Network(base).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

        def step(images):
            fixed, distorted, moving = (image.to(device) for image in images)
            optimizer.zero_grad()
            with torch.autocast("cuda" if device == "cuda" else "cpu", torch.bfloat16, enabled=half):
                warped, flow, restored = network(distorted, moving)
            warped, flow, restored = warped.float(), flow.float(), restored.float()
            (ncc_loss(warped, fixed) + smoothness(flow) + F.mse_loss(restored, fixed)).backward()
            optimizer.step()

        step(images)
        stepping = statistics.median(clock(lambda: step(images))[0] for _ in range(repeat))
        whole = statistics.median(clock(lambda: step(augment(a, b, noise)))[0] for _ in range(repeat))
        writing = clock(lambda: torch.save({"net": network.state_dict(), "opt": optimizer.state_dict()}, io.BytesIO()))[0]
    print(f"{size} {stepping:.4f} {whole:.4f} {augmenting:.4f} {writing:.4f}")


if __name__ == "__main__":
    main()
