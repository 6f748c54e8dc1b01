"""Write a submission from the models of one fold, as a baseline for K folds and an ensemble.

    python benchmarks/one_fold.py typed-punct@ko-mini --fold 0 --name klue-re-ko-mini-base

Labels are the most probable ones. The file has the format of ``blend`` and can be checked and
uploaded like any other, but has no record of a blend.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from competition.folds.kfold import read_prepared
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.store import Store
from competition.profile import resolve_competition
from competition.scoring.decisions import decide
from competition.scoring.metrics.micro_f1 import is_any_of
from competition.submission.write import write_answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("variant")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--name", required=True)
    parser.add_argument("--competition", default="klue-re")
    asked = parser.parse_args()
    prepared = read_prepared(resolve_competition(asked.competition, None, None))
    competition = prepared.competition
    profile = competition.profile
    store = Store(competition.oof_dir, profile.labels)
    results = [store.read(key) for key in store.keys(asked.variant) if key.fold == asked.fold]
    if not results:
        sys.exit(f"{asked.variant} has no result of fold {asked.fold}")
    test_ids = prepared.corpus.test.ids
    if any(not np.array_equal(each.test_ids, test_ids) for each in results):
        sys.exit(f"{asked.variant} does not answer for every test row")
    probs = average_in_log_space([each.test_probs for each in results])
    path = competition.submissions_dir / f"{asked.name}.csv"
    pred = decide(probs)
    write_answers(path, profile, test_ids.tolist(), probs, pred)
    share = np.mean(~is_any_of(pred, profile.negative_ids))
    print(f"{path}: {len(pred):,} rows, {share:.1%} positive")


if __name__ == "__main__":
    main()
