# shellcheck shell=bash disable=SC2154  # Nix sets them
# Makes a store path of `count` small files in directories of 200, of 40 bytes up to some 4 KiB.
mkdir -p "$out/share/many"
text() { while cat /bin/bash; do :; done; }
directories=$((count / 200))
for ((i = 1; i <= directories; i++)); do
  mkdir "$out/share/many/$i"
  size=$((i * 4000 / directories + 40))
  head -c $((size * 200)) < <(text 2>/dev/null) | split -a 3 -d -b $size - "$out/share/many/$i/file-"
done
