#!/bin/sh -eu
# What is held about a person, its erasure, and the proof. Run it where the server's settings are:
#   sh docs/examples/request_of_a_person.sh user=u_123 DSR-17
# It makes a directory of that name with the copy for the person, the signed report, and the page to file.
person=$1 folder=$2
PATH="$PWD/.venv/bin:$PATH"
umask 077
mkdir "$folder"

memstore export --where "$person" --output "$folder/copy.zip"
memstore forget --where "$person" --reference "$folder" --yes --report "$folder/report.json" > "$folder/summary.txt"
memstore forget report --format html > "$folder/report.html"
memstore forget verify "$folder/report.json"
ls "$folder"
