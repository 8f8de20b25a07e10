#!/bin/bash
# Installs on a host what a job was launched with: `bash install.sh FOLDER`. The folder holds
# code.tar.gz, requirements.txt (the lock) and uv.txt (the lock of uv); it gets venv/.
# Every package has the version and the hash of the lock, also those that build other packages.
set -eu

home=$1
# What a broken try left behind must not be mixed into this one.
rm -rf "$home/code" "$home/venv" "$home/uv"
mkdir "$home/code"
tar -xzf "$home/code.tar.gz" -C "$home/code"

# uv brings its own Python: that of a VM image is older, and changes with the image.
python3 -m pip install --quiet --require-hashes --target "$home/uv" --requirement "$home/uv.txt"
uv=$home/uv/bin/uv
"$uv" venv --quiet --managed-python --python 3.12 "$home/venv"
export VIRTUAL_ENV=$home/venv
lock=$home/requirements.txt
"$uv" pip install --quiet --require-hashes --build-constraints "$lock" --requirement "$lock"
"$uv" pip install --quiet --no-deps --build-constraints "$lock" "$home/code"
