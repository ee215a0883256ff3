#!/bin/bash
# The scripts of examples/streaming by themselves over plain pipes, two at a time: each mapper is fed a half of the text, each reducer a
# half of the sorted lines, which are there already (FOLDER/sorted.1 and .2). TEXT SCRIPTS FOLDER
set -e
text=$1 scripts=$2 folder=$3
half=$(($(stat -c %s "$text") / 2))
head -c $half "$text" | python3 "$scripts/map.py" > "$folder/mapped.1" &
tail -c +$((half + 1)) "$text" | python3 "$scripts/map.py" > "$folder/mapped.2" &
wait
for n in 1 2; do python3 "$scripts/reduce.py" < <(cat "$folder/sorted.$n") > "$folder/reduced.$n" & done
wait
