# shellcheck shell=bash disable=SC2154  # Nix sets them
# Makes a store path of 100 inodes with five names each, as programs with many names are installed.
mkdir -p "$out/libexec/linked/"{1..4}
cd "$out/libexec/linked" || exit
for ((i = 0; i < 100; i++)); do
  head -c $((i * 1000)) /bin/bash >"program-$i"
  for j in {1..4}; do ln "program-$i" "$j/program-$i"; done
done
