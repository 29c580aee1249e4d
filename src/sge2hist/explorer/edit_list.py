"""Edits as the page sends them, and as GeoJSON features, which the command line reads.

Every edit goes through its feature: what the explorer generates from is read from the same text as the command line reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sge2hist.explorer.fields import as_number, fields_of, flag, items, malformed, number, points, text, too_large
from sge2hist.explorer.limits import LIMITS
from sge2hist.generation.slide.edits import Edit, edits_of

MAX_NAME = 80
SCOPES = ("cell", "cells", "rectangle_um", "polygon_um", "everywhere")
ACTIONS = ("gene", "set_type", "remove", "move_um", "add_type")


def checked_edit(value: object) -> dict[str, Any]:
    """An edit of the page with known fields alone, checked; `RequestError` for anything else."""
    fields = fields_of(value, "edit")
    action = _action(fields_of(fields.get("action"), "action"))
    scope = None if fields.get("scope") is None else _scope(fields_of(fields["scope"], "scope"))
    if "at_um" in action:
        if scope is not None:
            raise malformed("at_um needs no scope")
    elif scope is None:
        raise malformed("an edit without a scope")
    elif "add_type" in action and not {"rectangle_um", "polygon_um"} & set(scope):
        raise malformed("cells are added in a rectangle or polygon, or at_um")
    elif "everywhere" in scope and "gene" not in action and "type" not in scope:
        raise malformed("everywhere, only a gene can be changed, or the cells of a type")
    if "add_type" in action and scope is not None and "type" in scope:
        raise malformed("type of the scope with add_type")
    return {
        "name": text(fields, "name", "", longest=MAX_NAME),
        "enabled": flag(fields, "enabled", True),
        "scope": scope,
        "action": action,
    }


def _scope(fields: dict[str, Any]) -> dict[str, Any]:
    chosen = [name for name in SCOPES if name in fields]
    if len(chosen) != 1:
        raise malformed(f"a scope has one of {', '.join(SCOPES)}")
    (name,) = chosen
    out: dict[str, Any]
    if name == "cell":
        out = {"cell": text(fields, "cell")}
    elif name == "cells":
        ids = items(fields, "cells", LIMITS.cells_named)
        out = {"cells": [text({"cells": cell}, "cells") for cell in ids]}
    elif name == "rectangle_um":
        corners = [float(as_number(v, name, -LIMITS.far_um, LIMITS.far_um)) for v in items(fields, name, 4, at_least=4)]
        if min(corners[2:]) <= 0:
            raise malformed("a rectangle without an area")
        out = {"rectangle_um": corners}
    elif name == "polygon_um":
        out = {"polygon_um": points(fields, name, LIMITS.polygon_points, at_least=3, far=LIMITS.far_um)}
    elif fields["everywhere"] is not True:
        raise malformed("everywhere is true or absent")
    else:
        out = {"everywhere": True}
    if fields.get("type") is not None:
        if name in ("cell", "cells"):
            raise malformed("type with named cells")
        out["type"] = text(fields, "type")
    return out


def _action(fields: dict[str, Any]) -> dict[str, Any]:
    chosen = [name for name in ACTIONS if name in fields]
    if len(chosen) != 1:
        raise malformed(f"an action is one of {', '.join(ACTIONS)}")
    (name,) = chosen
    if name == "gene":
        if ("factor" in fields) == ("counts" in fields):
            raise malformed("a gene has either a factor or counts")
        out: dict[str, Any] = {"gene": text(fields, "gene")}
        if "factor" in fields:
            return out | {"factor": float(number(fields, "factor", 0, LIMITS.dose_max))}
        return out | {"counts": float(number(fields, "counts", 0, LIMITS.counts_max))}
    if name == "set_type":
        return {"set_type": text(fields, "set_type")}
    if name == "remove":
        if fields["remove"] is not True:
            raise malformed("remove is true or absent")
        return {"remove": True}
    if name == "move_um":
        far = LIMITS.far_um
        return {"move_um": [float(as_number(v, name, -far, far)) for v in items(fields, name, 2, at_least=2)]}
    out = {"add_type": text(fields, "add_type")}
    if "at_um" in fields:
        return out | {"at_um": points(fields, "at_um", LIMITS.added_cells, at_least=1, far=LIMITS.far_um)}
    return out | {"spacing_um": float(number(fields, "spacing_um", 1, 1000, 12.0))}


def feature_of(edit: dict[str, Any], um_per_unit: float) -> dict[str, Any]:
    """A checked edit as a GeoJSON feature; its coordinates times `um_per_unit` are um."""
    scope, action = edit["scope"] or {}, dict(edit["action"])
    properties: dict[str, Any] = {"name": edit["name"]} if edit["name"] else {}
    geometry: dict[str, Any] | None = None

    def units(pairs: Sequence[Sequence[float]]) -> list[list[float]]:
        return [[value / um_per_unit for value in pair] for pair in pairs]

    if "rectangle_um" in scope:
        x, y, w, h = scope["rectangle_um"]
        ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
        geometry = {"type": "Polygon", "coordinates": [units(ring)]}
    elif "polygon_um" in scope:
        ring = scope["polygon_um"]
        geometry = {"type": "Polygon", "coordinates": [units([*ring, ring[0]] if ring[0] != ring[-1] else ring)]}
    elif "at_um" in action:
        geometry = {"type": "MultiPoint", "coordinates": units(action.pop("at_um"))}
    elif "cell" in scope or "cells" in scope:
        properties["cells"] = [scope["cell"]] if "cell" in scope else scope["cells"]
    if "type" in scope:
        properties["of_type"] = scope["type"]
    return {"type": "Feature", "geometry": geometry, "properties": properties | action}


def edit_of_feature(feature: object, um_per_unit: float) -> dict[str, Any]:
    """The edit of the page of a feature that this package or QuPath wrote; `RequestError` if it has none."""
    fields = fields_of(feature, "feature")
    properties = fields_of(fields.get("properties") or {}, "properties")
    (edit,) = edits_of([fields], um_per_unit)  # an InputError says what is wrong
    scope: dict[str, Any] | None = {"everywhere": True}
    if edit.cells is not None:
        scope = {"cell": edit.cells[0]} if len(edit.cells) == 1 else {"cells": list(edit.cells)}
    elif edit.at_um is not None:
        scope = None
    elif edit.area is not None:
        if edit.area.geom_type != "Polygon" or len(edit.area.interiors):
            raise malformed("a polygon of several parts or with holes: the explorer edits simple ones")
        scope = {"polygon_um": [[float(x), float(y)] for x, y in edit.area.exterior.coords[:-1]]}
    if scope is not None and edit.of_type is not None:
        scope["type"] = edit.of_type
    action = _action_of(edit)
    name = properties.get("name")
    return checked_edit({"name": name[:MAX_NAME] if isinstance(name, str) else "", "scope": scope, "action": action})


def _action_of(edit: Edit) -> dict[str, Any]:
    if edit.gene is not None:
        return {"gene": edit.gene} | ({"factor": edit.factor} if edit.counts is None else {"counts": edit.counts})
    if edit.set_type is not None:
        return {"set_type": edit.set_type}
    if edit.remove:
        return {"remove": True}
    if edit.move_um is not None:
        return {"move_um": list(edit.move_um)}
    if edit.at_um is not None:
        return {"add_type": edit.add_type, "at_um": [list(point) for point in edit.at_um]}
    return {"add_type": edit.add_type, "spacing_um": edit.spacing_um}


def parsed_edits(edits: Sequence[dict[str, Any]], um_per_unit: float) -> list[Edit]:
    """The enabled edits, as the command line would read them from the exported file."""
    features = [feature_of(edit, um_per_unit) for edit in edits if edit["enabled"]]
    return edits_of(features, um_per_unit) if features else []


def collection_of(
    name: str, edits: Sequence[dict[str, Any]], settings: dict[str, Any], um_per_unit: float
) -> dict[str, Any]:
    """All edits as a GeoJSON FeatureCollection. The enabled ones are its features; what the command line must not read (the
    disabled ones, the settings) is beside them.
    """
    disabled = [feature_of(edit, um_per_unit) for edit in edits if not edit["enabled"]]
    return {
        "type": "FeatureCollection",
        "features": [feature_of(edit, um_per_unit) for edit in edits if edit["enabled"]],
        "sge2hist": {"name": name, "settings": settings, "disabled": disabled},
    }


def edits_of_collection(content: object, um_per_unit: float) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Name, edits and settings of a collection; of any GeoJSON of edits the last two may be empty."""
    fields = fields_of(content, "the file")
    features = fields.get("features")
    own = fields_of(fields.get("sge2hist") or {}, "sge2hist")
    disabled = own.get("disabled") or []
    if not isinstance(features, list) or not isinstance(disabled, list):
        raise malformed("no GeoJSON FeatureCollection of edits")
    if len(features) + len(disabled) > LIMITS.edits:
        raise too_large(f"{len(features) + len(disabled)} edits; at most {LIMITS.edits}")
    edits = [edit_of_feature(feature, um_per_unit) for feature in features]
    edits += [edit_of_feature(feature, um_per_unit) | {"enabled": False} for feature in disabled]
    settings = fields_of(own.get("settings") or {}, "settings")
    return text(own, "name", "", longest=MAX_NAME), edits, settings
