"""Localisation metrics, slowly: pixel by pixel (spec 7.3, 7.5, 7.6 and the papers' words)."""

import math
from collections import deque

import numpy as np


def fill(boxes, size, first=False):
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes[:1] if first else boxes:
        for y in range(max(int(y0), 0), min(int(y1), size[0])):
            for x in range(max(int(x0), 0), min(int(x1), size[1])):
                mask[y, x] = True
    return mask


def overlap(a, b):
    both = either = 0
    for p, q in zip(a.flat, b.flat, strict=True):
        both += bool(p and q)
        either += bool(p or q)
    return both / either if either else 0.0


def iou(one, mask, threshold):
    return overlap(one >= threshold, mask)


def regions(mask, connectivity=8):
    """Sets of pixels, by flooding, in the order of their first pixel."""
    height, width = mask.shape
    seen, found = set(), []
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    for y in range(height):
        for x in range(width):
            if not mask[y, x] or (y, x) in seen:
                continue
            region, queue = {(y, x)}, deque([(y, x)])
            while queue:
                r, c = queue.popleft()
                for dr, dc in steps:
                    n = (r + dr, c + dc)
                    if 0 <= n[0] < height and 0 <= n[1] < width and mask[n] and n not in region:
                        region.add(n)
                        queue.append(n)
            seen |= region
            found.append(region)
    return found


def bounding_box(pixels):
    if not pixels:
        return (0, 0, 0, 0)
    rows, columns = [r for r, _ in pixels], [c for _, c in pixels]
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1)


def box_iou(one, boxes, threshold, component, gt, connectivity=8):
    top = one.max()
    mask = one >= threshold * top if top > 0 else np.zeros(one.shape, dtype=bool)
    found = regions(mask, connectivity)
    pixels = set().union(*found) if component == "all" else max(found, key=len, default=set())
    predicted = fill([bounding_box(pixels)], one.shape)
    if gt == "union":
        return overlap(predicted, fill(boxes, one.shape))
    chosen = boxes[:1] if gt == "first" else boxes
    return max(overlap(predicted, fill([box], one.shape)) for box in chosen)


def share_inside(one, mask):
    inside = total = 0.0
    for value, there in zip(one.flat, mask.flat, strict=True):
        total += max(value, 0.0)
        inside += max(value, 0.0) if there else 0.0
    return inside / total if total > 0 else 0.0


def pointing(one, mask, tolerance=0.0, any_tie=False):
    if not mask.any():
        return math.nan
    peaks = [(y, x) for y, x in np.ndindex(one.shape) if one[y, x] == one.max()]
    there = [(y, x) for y, x in np.ndindex(one.shape) if mask[y, x]]
    hits = [
        any((y - r) ** 2 + (x - c) ** 2 <= tolerance**2 + 1e-9 for r, c in there) for y, x in peaks
    ]
    return float(any(hits)) if any_tie else sum(hits) / len(hits)


def top_k(one, mask, k=None):
    """The mean over all ways to break ties, by drawing the missing ones evenly."""
    if not mask.any():
        return math.nan
    k = int(mask.sum()) if k is None else k
    order = sorted(one.flat, reverse=True)
    edge = order[k - 1]
    sure = [m for v, m in zip(one.flat, mask.flat, strict=True) if v > edge]
    tied = [m for v, m in zip(one.flat, mask.flat, strict=True) if v == edge]
    return (sum(sure) + (k - len(sure)) * sum(tied) / len(tied)) / k


def map_boxes_as_published(boxes, size, resize=232, crop=224, legacy=False):
    """Spec 7.3, both ways; without cutting to whole pixels."""
    width, height = size
    out = []
    for x0, y0, x1, y1 in boxes:
        if legacy:
            sx, sy = resize / width, resize / height
            dx = dy = (resize - crop) / 2
        else:
            sx = sy = resize / min(width, height)
            dx, dy = (width * sx - crop) / 2, (height * sy - crop) / 2
        moved = [x0 * sx - dx, y0 * sy - dy, x1 * sx - dx, y1 * sy - dy]
        out.append([min(max(v, 0.0), float(crop)) for v in moved])
    return out
