"""Write the package's data sets as the R scripts read them: DIR/data/*.csv and DIR/data/schema.json."""

import json
import sys
from pathlib import Path

import pandas as pd

import ranef as rf


def column(values: pd.Series) -> dict[str, object]:
    """Return the type of one column, with its levels where it is a factor."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        kind = "ordered" if values.cat.ordered else "factor"
        return {"type": kind, "levels": [str(level) for level in values.cat.categories]}
    return {"type": "integer" if values.dtype.kind in "iu" else "number" if values.dtype.kind == "f" else "string"}


def export(root: Path) -> None:
    """Write every data set below `root`."""
    folder = root / "data"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "models").mkdir(exist_ok=True)
    schema: dict[str, object] = {}
    for name in rf.datasets.names():
        frame = rf.datasets.load(name)
        frame.to_csv(folder / f"{name}.csv", index=False, na_rep="NA", float_format="%.17g")
        schema[name] = {"file": f"{name}.csv", "columns": {c: column(frame[c]) for c in frame.columns}}
    (folder / "schema.json").write_text(json.dumps(schema, indent=1))


if __name__ == "__main__":
    export(Path(sys.argv[1]))
