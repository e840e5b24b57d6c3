# Prints, as JSON, what default.nix asks about this machine's Debian packages:
#   packages  by name: Architecture; Version; `libraries`, the packages that have what its programs and libraries
#             link to; `parts`, the packages with the programs to which its symlinks in /usr/bin lead
#   commands  by name, as in $commands: the package that has it
# All but the version comes from the files that are installed: what packages declare changes its names from release
# to release, and leads to libraries by way of packages that have none.
# It must never read anything but what dpkg installed, its database, and the cache of the dynamic loader.
# shellcheck shell=bash disable=SC2154  # Nix sets $commands
set -euo pipefail
export PATH=/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C

command -v readelf >/dev/null || {
  echo 'readelf is not installed; .ci/set-up run installs it, with binutils' >&2
  exit 1
}
work=$(mktemp -d)
cd "$work"

# Installed packages of this machine's architecture: name, architecture, version, and the name of its list of files.
dpkg-query -W -f='${db:Status-Status} ${Architecture} ${Package} ${Version} ${binary:Package}\n' |
  awk -v native="$(dpkg --print-architecture)" '$1 == "installed" && ($2 == native || $2 == "all") { print $3, $2, $4, $5 }' >packages

# Package and path of each file below /bin, /sbin and /lib, whatever of them is a symlink into /usr. (A package has
# it listed with or without /usr.)
while read -r name _ _ full; do
  list=/var/lib/dpkg/info/$full.list
  if [[ -e $list ]]; then printf '%s\t%s\n' "$name" "$list"; fi
done <packages >lists
awk -F '\t' 'FNR == NR { name[$2] = $1; ARGV[ARGC++] = $2; next }
  /^\/(usr\/)?(bin|sbin|lib[^\/]*)\// { print name[FILENAME] "\t" $0 }' lists >files

# What programs and libraries link to, and where they look for it. readelf names files only if it is given several.
cut -f 2 files | grep -v '\.\(a\|o\|py\|pm\|h\|ko\|ko\.xz\)$' |
  xargs -d '\n' sh -c 'find "$@" -maxdepth 0 -type f "(" -perm /111 -o -name "*.so*" ")" 2>/dev/null || true' sh |
  xargs -d '\n' sh -c 'readelf -dW "$@" /bin/sh 2>/dev/null || true' sh |
  sed -n 's/^File: /F\t/p; s/.*(NEEDED).*\[\(.*\)\]$/N\t\1/p; s/.*(\(RPATH\|RUNPATH\)).*\[\(.*\)\]$/R\t\2/p' >links
# Where the dynamic loader finds libraries, with symlinks such as those of update-alternatives followed.
ldconfig -p 2>/dev/null | sed -n 's/^\t\([^ ]*\) (.*) => \(.*\)/\1\t\2/p' >cached || true
cut -f 2 cached | xargs -r -d '\n' readlink -m | paste cached - >loaded

# The symlinks among the commands, with the programs to which they lead.
cut -f 2 files | grep -E '^/(usr/)?s?bin/' | xargs -d '\n' sh -c 'find "$@" -maxdepth 0 -type l 2>/dev/null || true' sh >symlinks
# shellcheck disable=SC2094  # it reads twice
xargs -r -d '\n' readlink -m <symlinks | paste symlinks - >leads

# A command, each symlink on the way to its program, and the program.
for command in $commands; do
  path=$(command -v "$command") || continue
  for ((links = 0; links < 40; links++)); do
    printf '%s\t%s\n' "$command" "$path"
    [[ -L $path ]] || break
    target=$(readlink "$path")
    if [[ $target == /* ]]; then path=$target; else path=${path%/*}/$target; fi
  done
done >ways

awk -F '\t' '
  function plain(path) { sub(/^\/usr\//, "/", path); sub(/^\/sbin\//, "/bin/", path); return path }
  function owner(path) { return owners[plain(path)] }
  # Without ".", ".." and a symlinked directory: only what $ORIGIN leads to needs that.
  function flat(path) {
    while (sub(/\/\.\//, "/", path)) continue
    while (sub(/\/[^\/]+\/\.\.\//, "/", path)) continue
    return path
  }
  function found(name, count, directories, i, path) {
    count = split(run_path, directories, ":")
    for (i = 1; i <= count; i++) {
      path = directories[i] "/" name
      gsub(/\$ORIGIN|\$\{ORIGIN\}/, folder, path)
      if (owner(flat(path)) != "") return owner(flat(path))
    }
    return name in loaded ? loaded[name] : owner(standard "/" name)
  }
  function needs(count, names, i, from) {
    count = split(needed, names, " ")
    for (i = 1; i <= count; i++) {
      from = found(names[i])
      if (from != "" && from != package && !((package, from) in seen)) {
        seen[package, from] = 1
        libraries[package] = libraries[package] " " from
      }
    }
    needed = run_path = ""
  }
  function list(names, count, name, i, text) {
    count = split(names, name, " ")
    for (i = 1; i <= count; i++) text = text (i > 1 ? ", " : "") "\"" name[i] "\""
    return "[" text "]"
  }
  FILENAME == "files" {
    owners[plain($2)] = $1
    if ($2 ~ /\/libc\.so\.[0-9.]+$/) { standard = $2; sub(/\/[^\/]*$/, "", standard) }
    next
  }
  FILENAME == "loaded" {
    from = owner($2) != "" ? owner($2) : owner($3)
    if (from != "" && !($1 in loaded)) loaded[$1] = from
    next
  }
  FILENAME == "links" && $1 == "F" { needs(); package = owner($2); folder = $2; sub(/\/[^\/]*$/, "", folder); next }
  FILENAME == "links" && $1 == "N" { needed = needed " " $2; next }
  FILENAME == "links" { run_path = $2; next }
  FILENAME == "leads" {
    from = owner($1); to = owner($2)
    if (to != "" && to != from && !((from, to) in part)) { part[from, to] = 1; parts[from] = parts[from] " " to }
    next
  }
  FILENAME == "ways" { if (owner($2) != "" && !($1 in commands)) commands[$1] = owner($2); next }
  FILENAME == "packages" {
    if (!ended++) { needs(); printf "{ \"packages\": {" }
    split($0, fields, " ")
    name = fields[1]
    printf "%s\n\"%s\": { \"Architecture\": \"%s\", \"Version\": \"%s\", \"libraries\": %s, \"parts\": %s }",
      comma, name, fields[2], fields[3], list(libraries[name]), list(parts[name])
    comma = ","
  }
  END {
    printf "\n}, \"commands\": {"
    comma = ""
    for (name in commands) { printf "%s\n\"%s\": \"%s\"", comma, name, commands[name]; comma = "," }
    print "\n} }"
  }
' files loaded links leads ways packages
