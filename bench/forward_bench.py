#!/usr/bin/python3
"""The U-Net in plain PyTorch, as a user would write it: the peer of gvsl_forward_bench.

Reads one request a line on stdin, `SIZE REPEAT INPUT OUTPUT` (raw float32 files), and answers each with the
seconds of every pass. Run by bench/forward; the weights file holds the tensors in the official order.
"""
import sys
import time

import numpy as np
import torch
from torch import nn

WIDTHS = (32, 64, 128, 256, 512)


def double_conv(inputs, outputs):
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv3d(channels, outputs, 3, padding=1), nn.GroupNorm(outputs // 8, outputs),
                   nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        inputs = (1,) + WIDTHS[:-1]
        self.down = nn.ModuleList(double_conv(i, o) for i, o in zip(inputs, WIDTHS))
        self.up = nn.ModuleList(double_conv(WIDTHS[k] + WIDTHS[k + 1], WIDTHS[k]) for k in (3, 2, 1, 0))
        self.pool = nn.MaxPool3d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode='trilinear', align_corners=True)

    def forward(self, x):
        encoded = [self.down[0](x)]
        for block in list(self.down)[1:]:
            encoded.append(block(self.pool(encoded[-1])))
        x = encoded[-1]
        for block, skip in zip(self.up, encoded[-2::-1]):
            x = block(torch.cat([skip, self.upsample(x)], dim=1))
        return x


def main():
    weights_path, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    net = UNet().eval()
    with open(weights_path, 'wb') as file:  # the peer reads the same weights
        for parameter in net.parameters():
            file.write(parameter.detach().numpy().tobytes())
    print('ready', torch.__version__, flush=True)
    for line in sys.stdin:
        size, repeat, input_path, output_path = line.split()
        size = int(size)
        image = torch.from_numpy(np.fromfile(input_path, dtype=np.float32)).view(1, 1, size, size, size)
        seconds = []
        for _ in range(int(repeat)):
            start = time.perf_counter()
            with torch.no_grad():
                dense = net(image)
            seconds.append(time.perf_counter() - start)
        dense.numpy().tofile(output_path)
        print(*seconds, flush=True)


if __name__ == '__main__':
    main()
