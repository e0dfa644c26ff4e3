#!/usr/bin/python3
"""How well features find the same place in another patient.

usage: match_labels.py FIXED.npy FIXED_LABELS.nii.gz MOVING.npy MOVING_LABELS.nii.gz

The arrays are dense features in the volumes' own space (`gvsl features dense V --space volume -o V.npy`). For voxels
of every structure of the fixed volume the voxel of the moving volume with the most similar features is looked up;
the answer is the share that lands in the same structure, averaged over the structures. Chance is a structure's share
of the volume.
"""
import sys

import nibabel
import numpy

SAMPLES = 300  # voxels a structure


def voxels(features_path, labels_path):
    """Features [voxel, channel] and labels of all voxels, in one order."""
    features = numpy.load(features_path).astype(numpy.float32)
    labels = numpy.asarray(nibabel.load(labels_path).dataobj).transpose(2, 1, 0)  # NIfTI's columns come first
    if features.shape[1:] != labels.shape:
        sys.exit(f"{features_path} has voxels {features.shape[1:]}, {labels_path} {labels.shape}; "
                 "take the features with --space volume")
    return features.reshape(len(features), -1).T, labels.flatten()


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    fixed, fixed_labels = voxels(*sys.argv[1:3])
    moving, moving_labels = voxels(*sys.argv[3:5])
    mean, deviation = moving.mean(0), moving.std(0) + 1e-6
    fixed, moving = (fixed - mean) / deviation, (moving - mean) / deviation
    half_square = (moving ** 2).sum(1) / 2
    random = numpy.random.default_rng(0)
    shares = []
    for label in sorted(set(fixed_labels) & set(moving_labels) - {0}):
        places = numpy.flatnonzero(fixed_labels == label)
        places = random.choice(places, min(SAMPLES, len(places)), replace=False)
        nearest = (fixed[places] @ moving.T - half_square).argmax(1)
        shares.append((moving_labels[nearest] == label).mean())
    print(f"{100 * numpy.mean(shares):.1f} % of voxels find their own structure, mean over {len(shares)} structures")


if __name__ == "__main__":
    main()
