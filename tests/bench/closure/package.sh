# shellcheck shell=bash disable=SC2154  # Nix sets them
# Makes a store path of an installed Debian package: all its files, and the references to its dependencies.
mkdir -p "$out"
# Files only: the directories of a usr-merged system are partly links. tar keeps hard links.
dpkg-query -L "$debian" |
  while IFS= read -r file; do
    if [[ ! -d $file && ( -f $file || -L $file ) ]]; then printf '%s\n' "${file#/}"; fi
  done |
  tar -c -C / --no-recursion --files-from=- | tar -x -C "$out"
mkdir -p "$out/references"
printf '%s\n' "$dependencies" >"$out/references/$debian"
