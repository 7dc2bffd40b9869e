"""Rankings, protocols and metrics by plain loops in float64, straight from their definitions."""

import numpy as np


def ranked_hits(scores, relevant):
    """Whether each place of the ranking holds a relevant image; ties put the irrelevant first."""
    pairs = sorted(zip(scores, relevant, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [hit for _, hit in pairs]


def query_metrics(hits, average_precision="mean"):
    precisions, found = [], 0
    for place, hit in enumerate(hits):
        if hit:
            at = (found + 1) / (place + 1)
            before = found / place if place > 0 else 1.0
            precisions.append(at if average_precision == "mean" else (before + at) / 2)
            found += 1
            last = place + 1
    return {
        "R1": float(any(hits[:1])),
        "R5": float(any(hits[:5])),
        "R10": float(any(hits[:10])),
        "mAP": sum(precisions) / found,
        "mINP": found / last,
    }


def removed_from(category, images, protocol, cameras):
    """Indices of what the query of a category does not see; images are dicts of their labels."""
    if protocol != "sal":
        return set()
    own = [index for index, image in enumerate(images) if image["category"] == category]
    candidates = [i for i in own if images[i]["filename"].startswith("query/") or not cameras]
    if not candidates:
        return set()
    first = min(candidates, key=lambda index: images[index]["filename"])
    if not cameras:
        return {first}
    same = ("identity", "camera")
    return {i for i in own if all(images[i][name] == images[first][name] for name in same)}


def evaluate(similarity, query_category, images, protocol, *, cameras=False, seen=None):
    """The whole result of a protocol."""
    scored = {}
    for row, category in enumerate(query_category):
        removed = removed_from(category, images, protocol, cameras)
        gallery = [index for index in range(len(images)) if index not in removed]
        relevant = [images[index]["category"] == category for index in gallery]
        if any(relevant):
            scores = [float(similarity[row][index]) for index in gallery]
            average_precision = "trapezoidal" if protocol == "asmr" else "mean"
            scored[row] = query_metrics(ranked_hits(scores, relevant), average_precision)

    def mean(rows, names):
        if not rows:
            return None
        return {n: float(np.mean([scored[row][n] for row in rows])) for n in names} | {
            "queries": len(rows)
        }

    result = mean(list(scored), ("R1", "R5", "R10", "mAP", "mINP"))
    result["skipped_queries"] = len(query_category) - len(scored)
    result["gallery"] = len(images)
    if seen is not None:
        result["seen"] = mean([row for row in scored if seen[row]], ("R1", "mAP"))
        result["unseen"] = mean([row for row in scored if not seen[row]], ("R1", "mAP"))
    return result


def upar_query(scores, distances):
    """R1 to mADM of one query by protocol `upar`; an image is relevant where no bit differs."""
    images = len(scores)
    total, least = sum(distances), min(distances)
    worth = [
        max(0.0, (total - images * d) / (total - images * least))
        if total != images * least
        else 1.0
        for d in distances
    ]
    ranking = sorted(range(images), key=lambda image: -scores[image])  # stable: the gallery's order
    hits = [distances[image] == 0 for image in ranking]
    means = [
        sum(worth[image] for image in ranking[:rank]) / rank
        for rank, hit in enumerate(hits, 1)
        if hit
    ]
    return {**query_metrics(hits), "mADM": sum(means) / len(means)}
