"""Builds data/models.json, the catalogue of models and prices, from two public packages.

    python scripts/build_catalogue.py                    # the newest releases
    python scripts/build_catalogue.py --wheels FOLDER    # wheels that are there already

Prices come from genai-prices where it curates them, else from litellm; limits, modalities and features from
litellm, else from genai-prices. Where both name a price and differ by more than 0.5 %,
data/models.disagreements.json says so. The result is one JSON object with a row to the line, sorted by key,
so that a row can be found without reading the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from catalogue_sources import (
    Node,
    Prices,
    find,
    genai_entries,
    genai_providers,
    litellm_entry,
    litellm_rows,
    literals,
    wheel,
)

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1
# Our provider names, and what the sources call them. Of several litellm names, an earlier one wins.
GENAI = {"xai": "x-ai"}
LITELLM = {
    "azure": ["azure", "azure_ai"],
    "together": ["together_ai"],
    "fireworks": ["fireworks_ai"],
    "vllm": ["hosted_vllm"],
    "lmstudio": ["lm_studio"],
}
KINDS = {"chat", "responses", "completion", "embedding"}
FEATURES = {
    "tools": "supports_function_calling",
    "parallel_tools": "supports_parallel_function_calling",
    "json_schema": "supports_response_schema",
    "reasoning": "supports_reasoning",
    "prompt_caching": "supports_prompt_caching",
    "web_search": "supports_web_search",
    "computer_use": "supports_computer_use",
}
INPUTS = {
    "image": "supports_vision",
    "document": "supports_pdf_input",
    "audio": "supports_audio_input",
    "video": "supports_video_input",
}
# litellm's rows leave these out where the model cannot do it.
ABSENT_IS_NO = {"tools", "image", "audio"}
REGIONS = ("eu/", "us/", "global/", "global-standard/")
WORTH_TELLING = Decimal("0.005")


def plain(value: Decimal) -> str:
    """A decimal without exponent, trailing zeros and what binary arithmetic left behind at a source."""
    text = format(round(value, 12), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def compact(entry: Prices) -> dict[str, Any]:
    """A price entry as it is written: decimals as text, tiers as a list, nothing that is empty."""
    written: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "tiers":
            tiers = [{"above": above} | compact(prices) for above, prices in sorted(value.items())]
            if tiers:
                written["tiers"] = tiers
        elif key == "modes":
            modes = {mode: compact(prices) for mode, prices in sorted(value.items())}
            if modes:
                written["modes"] = modes
        elif value is not None:
            written[key] = plain(value) if isinstance(value, Decimal) else value
    return written


def free(entry: Prices) -> bool:
    """Whether an entry names no price above zero for tokens: not known rather than free."""
    return not any(entry.get(key) for key in ("input", "output"))


def features(row: dict[str, Any]) -> tuple[dict[str, bool], dict[str, list[str]]]:
    """What a litellm row says that the model can do, and what goes in and out of it."""
    annotated = any(key.startswith("supports_") for key in row)
    if row["mode"] == "embedding":
        return {"tools": False}, {
            "input": ["text"] + (["image"] if row.get("supports_embedding_image_input") else [])
        }
    known = {name: row[column] for name, column in FEATURES.items() if isinstance(row.get(column), bool)}
    if annotated and "tools" not in known:
        known["tools"] = False
    listed = row.get("supported_modalities")
    inputs = ["text"]
    for name, column in INPUTS.items():
        said = row.get(column)
        if said or (said is None and listed and name in listed):
            inputs.append(name)
        elif said is False or listed or (annotated and name in ABSENT_IS_NO):
            known[f"{name}_input"] = False
    modalities = {"input": inputs}
    outputs = row.get("supported_output_modalities")
    if outputs:
        modalities["output"] = sorted(set(outputs) & {"text", "image", "audio", "video"}, reverse=True)
    elif row.get("supports_audio_output"):
        modalities["output"] = ["text", "audio"]
    return known, modalities


def from_litellm(row: dict[str, Any], version: str) -> dict[str, Any]:
    """A row made of litellm's facts; prices included."""
    known, modalities = features(row)
    limits = {
        "context": row.get("max_input_tokens"),
        "input": row.get("max_input_tokens"),
        "output": row.get("max_output_tokens") if row["mode"] != "embedding" else None,
        "dimensions": row.get("output_vector_size"),
    }
    made: dict[str, Any] = {"kind": row["mode"]}
    found = {name: int(value) for name, value in limits.items() if value}
    if found:
        made["limits"] = found
    made |= {name: value for name, value in modalities.items() if value != ["text"] or name == "input"}
    if known:
        made["features"] = known
    if row.get("deprecation_date"):
        made["retires"] = row["deprecation_date"]
    special = row.get("provider_specific_entry") or {}
    if "us" in special:
        made["geo_factors"] = {"us": plain(Decimal(special["us"]))}
    entry = litellm_entry(row)
    if not free(entry):
        made["prices"] = [entry]
    made["sources"] = {"facts": version} | ({"prices": version} if "prices" in made else {})
    return made


def disagreement(ours: Prices, theirs: Prices) -> dict[str, list[str]]:
    """The prices of two entries that differ by more than 0.5 %, the one that is taken first."""
    told = {}
    for key, price in ours.items():
        other = theirs.get(key)
        if isinstance(price, Decimal) and isinstance(other, Decimal) and key != "requests":
            larger = max(price, other)
            if larger and abs(price - other) / larger > WORTH_TELLING:
                told[key] = [plain(price), plain(other)]
    return told


def same(one: Prices, other: Prices) -> bool:
    """Whether two entries name the same prices, whatever their dates."""
    return {**one, "from": None} == {**other, "from": None}


class Builder:
    """Collects rows, aliases and disagreements."""

    def __init__(self, folder: Path) -> None:
        genai, self.genai_version = wheel(folder, "genai-prices")
        lite, self.litellm_version = wheel(folder, "litellm")
        self.genai = genai_providers(genai)
        self.lite = litellm_rows(lite)
        self.rows: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.disagreements: dict[str, Any] = {}
        self.unpriced: list[str] = []

    def provider(self, name: str) -> None:
        """All models of one provider."""
        for source in LITELLM.get(name, [name]):
            for listed, row in self.lite.items():
                if row.get("litellm_provider") == source and row.get("mode") in KINDS:
                    model = listed.removeprefix(f"{source}/").removeprefix(f"{name}/")
                    key = f"{name}/{model.lower()}"
                    if key not in self.rows:
                        self.rows[key] = from_litellm(row, "litellm")
                        if free(litellm_entry(row)) and "input_cost_per_token" in row:
                            self.unpriced.append(key)
        node = self.genai.get(GENAI.get(name, name))
        if node is not None:
            self.curated(name, node)
        self.fine_tunable(name)

    def curated(self, name: str, node: Node) -> None:
        """Lays genai-prices' models over what is there, and adds the names that only it knows."""
        for key in [key for key in self.rows if key.startswith(f"{name}/")]:
            listed = key.removeprefix(f"{name}/")
            model = find(node, listed)
            # genai-prices does not price Azure's regions apart; litellm does.
            if model is not None and not (name == "azure" and listed.startswith(REGIONS)):
                self.merge(key, model)
        for model in node.get("models", []):
            names = [model.get("id"), *literals(model.get("match"))]
            home = next(
                (f"{name}/{each.lower()}" for each in names if f"{name}/{each.lower()}" in self.rows), None
            )
            for each in names:
                key = f"{name}/{each.lower()}"
                # A name that an earlier model's rule takes belongs to that one.
                if key in self.rows or key in self.aliases or find(node, each) is not model:
                    continue
                if home is None:
                    self.rows[key] = {"sources": {}}
                    self.merge(key, model)
                    if self.rows[key].get("prices") or self.rows[key].get("limits"):
                        home = key
                    else:
                        del self.rows[key]
                elif home != key:
                    self.aliases[key] = home

    def merge(self, key: str, model: Node) -> None:
        """Takes genai-prices' prices for a row, telling where litellm's differ."""
        row = self.rows[key]
        context = model.get("context_window")
        if context and not row.get("limits"):
            row["limits"] = {"context": context}
            row["sources"]["facts"] = "genai-prices"
        entries = [entry for entry in genai_entries(model) if not free(entry) or key.endswith(":free")]
        if not entries:
            return
        if row.get("prices"):
            other = row["prices"][0]
            told = disagreement(entries[0] if "hours" in entries[-1] else entries[-1], other)
            if told:
                self.disagreements[key] = told
            added = [self.fill(entry, other) for entry in entries]
            if any(added):
                row["sources"]["more_prices"] = "litellm"
        row["prices"] = [
            entry for before, entry in zip([{}, *entries], entries, strict=False) if not same(before, entry)
        ]
        row["sources"]["prices"] = "genai-prices"

    @staticmethod
    def fill(entry: Prices, other: Prices) -> bool:
        """Adds what only litellm prices (audio, ways of processing), where both agree on the rest."""
        if disagreement(entry, other) or "hours" in entry:
            return False
        missing = {key: value for key, value in other.items() if key not in entry and key != "modes"}
        entry |= missing
        modes: dict[str, Prices] = {}
        # Where only one of them knows tiers, the other's prices may be those of another time.
        if bool(entry.get("tiers")) == bool(other.get("tiers")):
            modes = {mode: dict(prices) for mode, prices in other.get("modes", {}).items()}
            modes = {mode: prices for mode, prices in modes.items() if mode not in entry["modes"]}
        entry["modes"] |= modes
        return bool(missing or modes)

    def hugging_face(self) -> None:
        """The hosts behind Hugging Face's router; `model:host` names one."""
        for source, node in self.genai.items():
            if source.startswith("huggingface_"):
                host = source.removeprefix("huggingface_")
                for model in node.get("models", []):
                    key = f"huggingface/{model.get('id').lower()}:{host}"
                    self.rows[key] = {"sources": {}}
                    self.merge(key, model)

    def fine_tunable(self, name: str) -> None:
        """A model with a price for its fine-tuned copies can be fine-tuned."""
        tuned = f"{name}/ft:"
        for key in [key for key in self.rows if key.startswith(tuned)]:
            parent = self.rows.get(f"{name}/{key.removeprefix(tuned)}")
            if parent is not None:
                parent.setdefault("features", {})["fine_tunable"] = True

    def lines(self) -> list[str]:
        """The file, line by line."""
        table: dict[str, Any] = dict(self.aliases)
        for key, row in self.rows.items():
            if row.get("prices"):
                row["prices"] = [compact(entry) for entry in row["prices"]]
            table[key] = {name: value for name, value in row.items() if value}
        header = {
            "format": FORMAT,
            "sources": {"genai-prices": self.genai_version, "litellm": self.litellm_version},
        }
        body = [f"{dump(key)}:{dump(table[key])}" for key in sorted(table, key=str.encode)]
        lines = [dump(header)[:-1] + ',"models":{', *[f"{line}," for line in body[:-1]], body[-1], "}}"]
        json.loads("\n".join(lines))
        return lines


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def licences(folder: Path) -> None:
    """Keeps the licence text of each source beside the data."""
    target = ROOT / "data" / "licenses"
    target.mkdir(exist_ok=True)
    for package in ("genai-prices", "litellm"):
        path, _ = wheel(folder, package)
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
            (target / f"{package}.txt").write_bytes(archive.read(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="a folder with both wheels, instead of downloading them")
    folder = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary)
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]
            subprocess.run([*command, "--dest", temporary, "genai-prices", "litellm"], check=True)
        builder = Builder(folder)
        for name in tomllib.loads((ROOT / "data" / "providers.toml").read_text()):
            builder.provider(name)
        builder.hugging_face()
        lines = builder.lines()
        (ROOT / "data" / "models.json").write_text("\n".join(lines) + "\n")
        report = {
            "about": "Prices that differ by more than 0.5 %: genai-prices' (taken) and litellm's.",
            "differ": dict(sorted(builder.disagreements.items())),
            "zero_in_litellm_taken_as_unknown": sorted(builder.unpriced),
        }
        (ROOT / "data" / "models.disagreements.json").write_text(json.dumps(report, indent=1) + "\n")
        licences(folder)
    counts = (len(builder.rows), len(builder.aliases), len(builder.disagreements))
    print("{} models, {} other names, {} disagreements".format(*counts))


if __name__ == "__main__":
    main()
