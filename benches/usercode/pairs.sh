#!/bin/bash
# Figures of user code: each job and its peer in turn, N times; seconds of both and their ratio, and the medians of ratios.
# pairs.sh GRISTMILL TEXT FOLDER N, where FOLDER is for whatever is written; mrjob and clang are left out where they are not there.
set -euo pipefail
gristmill=$(realpath "$1") text=$(realpath "$2") n=$4
mkdir -p "$3" && folder=$(realpath "$3")
here=$(cd "$(dirname "$0")" && pwd) examples=$(cd "$(dirname "$0")/../../examples" && pwd)

seconds() {
  local begin end
  begin=$(date +%s%N)
  "$@" > "$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
  end=$(date +%s%N)
  awk "BEGIN { print ($end - $begin) / 1e9 }"
}
pair() {
  local name=$1 a b i
  for i in $(seq "$n"); do
    a=$(seconds "$2") b=$(seconds "$3")
    awk "BEGIN { printf \"%s\t%.2f\t%.2f\t%.3f\\n\", \"$name\", $a, $b, $a / $b }" | tee -a "$folder/pairs"
  done
  grep "^$name" "$folder/pairs" | tail -n "$n" | cut -f4 | sort -n | awk -v name="$name" '{ all[NR] = $1 } END { print name, "median", all[int((NR + 1) / 2)] }'
}
peer() { python3 "$here/multiprocessing_count.py" "$text" "$folder/peer" 2; }
python() { "$gristmill" run python "$here/$1" "$text" -q --threads 2 -o "$folder/out" --overwrite; }
counter() { python counter.py; }
yields() { python yields.py; }
mrjob() { rm -rf "$folder/mrjob"; python3 "$here/mrjob_count.py" -r local "$text" --output-dir "$folder/mrjob"; }
streaming() {
  "$gristmill" run streaming -input "$text" -output "$folder/out" --overwrite -mapper map.py -reducer reduce.py \
    -file "$examples/streaming/map.py" -file "$examples/streaming/reduce.py" -numReduceTasks 2 -q --threads 2
}
plain() { bash "$here/plain.sh" "$text" "$examples/streaming" "$folder"; }
wasm() { "$gristmill" run wasm "$folder/wordcount.wasm" "$text" -q --threads 2 -o "$folder/out" --overwrite; }
native() { "$gristmill" run wordcount "$text" -q --threads 2 -o "$folder/out" --overwrite; }

if command -v clang > /dev/null; then
  clang --target=wasm32 -O3 -mbulk-memory -msimd128 -nostdlib -Wl,--no-entry -o "$folder/wordcount.wasm" "$examples/wasm/wordcount.c"
  pair wasm/native wasm native
fi
pair counter/multiprocessing counter peer
pair yields/multiprocessing yields peer
if python3 -c 'import mrjob' 2> /dev/null; then pair mrjob/yields mrjob yields; fi
if [ ! -e "$folder/sorted.2" ]; then
  python3 "$examples/streaming/map.py" < "$text" | LC_ALL=C sort > "$folder/sorted"
  lines=$(wc -l < "$folder/sorted")
  head -n $((lines / 2)) "$folder/sorted" > "$folder/sorted.1"
  tail -n +$((lines / 2 + 1)) "$folder/sorted" > "$folder/sorted.2"
fi
pair streaming/plain streaming plain
