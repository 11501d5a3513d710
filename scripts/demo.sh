#!/usr/bin/env bash
# The main job, from a capture to a NeRF trained on what MTCM kept, on a machine with nothing but Python.
#
# Usage:
#   bash scripts/demo.sh            with the sample capture in data/sample
#   bash scripts/demo.sh CAPTURE    with a capture of your own: a folder with a transforms.json or a COLMAP model,
#                                   or with photos only, which are then posed first
#
# Everything is written to outputs/demo/<name of the capture>/ in the repository; the capture is only read.
# MTCM_DEMO_STEPS  training steps (default 500)
# See scripts/setup.sh for MTCM_VENV and MTCM_PYTHON.

case ${1:-} in
  -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
  -*) echo "error: $1 is no option of demo.sh; it takes the folder of a capture." >&2; exit 2 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
capture=${1:-$here/../data/sample}
[ -d "$capture" ] || { echo "error: $capture: no such folder." >&2; exit 2; }
capture=$(cd "$capture" && pwd -P)

source "$here/setup.sh" run
export PYTHONUNBUFFERED=1        # so that the log tells how far a command is
export OMP_WAIT_POLICY=PASSIVE   # torch's threads wait asleep: six times as fast where other programs run, too

steps=${MTCM_DEMO_STEPS:-500}
name=$(basename "$capture")
out=$MTCM_REPOSITORY/outputs/demo/$name
run=$out/train/demo/mtcm-nerfacto-tiny/run
mkdir -p "$out"
log=$out/demo.log
: >"$log"

# nerfstudio says a lot; it goes to the log, and its progress is summed up here.
quietly() {
  run_quietly "$log.part" "$@" || {
    tail -n 30 "$log.part" >&2
    die "$1 failed; the whole log is $log.part."
  }
  cat "$log.part" >>"$log" && rm "$log.part"
}

layout=$(python - "$capture" <<'PY'
import sys
from pathlib import Path
from mtcm_nerfstudio.capture.read import detect_source
print(detect_source(Path(sys.argv[1])))
PY
)
if [ "$layout" = photos ]; then
  say "posing the photos with COLMAP"
  ns-mtcm-process --data "$capture" --output-dir "$out/posed"
  capture=$out/posed
fi

say "filtering $capture"
ns-mtcm-filter --data "$capture" --output-dir "$out/mtcm"

say "training mtcm-nerfacto-tiny on the kept frames, $steps steps"
rm -rf "$run"
quietly ns-train mtcm-nerfacto-tiny --data "$capture" --output-dir "$out/train" \
  --experiment-name demo --timestamp run --max-num-iterations "$steps" --vis tensorboard \
  --pipeline.datamanager.output-dir "$out/mtcm"

say "evaluating on the frames that were held out"
quietly ns-eval --load-config "$run/config.yml" --output-path "$out/eval/metrics.json" \
  --render-output-path "$out/eval/images"
grep -am 1 '^LPIPS is absent' "$log" | sed 's/^/  /' || true
python - "$out/eval/metrics.json" <<'PY'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
print("  " + ", ".join(f"{name.upper()} {results[name]:.2f}" for name in ("psnr", "ssim", "lpips") if name in results))
PY

say "rendering a flight through the held-out views"
quietly ns-render interpolate --load-config "$run/config.yml" --pose-source eval --interpolation-steps 4 --downscale-factor 2 \
  --frame-rate 8 --output-path "$out/render/flight.mp4"

say "done. In $out:"
cat <<EOF
  mtcm/filtered_views.json   what was decided about each frame, and why (filtered_views.csv: the same as a table)
  mtcm/filtered_images.txt   the frames that were kept
  eval/images/               held-out frames, photographed (left) and rendered
  eval/metrics.json          the metrics over them
  render/flight.mp4          a flight through the held-out views
  ${run#"$out/"}/   the trained model; ns-viewer --load-config config.yml shows it
  demo.log                   what nerfstudio said
EOF
