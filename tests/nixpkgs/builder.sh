# Makes a store path of an installed Debian package, or of several in one: their files without the leading /usr, sbin in bin as
# in nixpkgs, and with the loader, libraries and shell of the store. default.nix says what the variables hold.
# shellcheck shell=bash disable=SC2154  # Nix sets them
set -euo pipefail
shopt -s globstar nullglob
export PATH=/usr/bin:/bin LC_ALL=C

# What programs need while they run. glibc looks for gconv modules below /usr alone: useless here.
wanted='^/(usr/)?(bin|sbin|lib[^/]*|share)/'
unwanted='^/usr/share/(bug|debianutils|doc|doc-base|gitweb|info|lintian|locale|man|menu|perl5)/|^(/usr)?/lib/systemd/|/(gconv|pkgconfig)/'

fail() {
  printf '%s: %s\n' "$debian" "$*" >&2
  exit 1
}

copy() {
  mkdir -p "$out"
  # Files only: the directories of a usr-merged system are partly links. tar keeps hard links.
  # shellcheck disable=SC2086  # several
  dpkg-query -L $debian | { grep -E "$wanted" || true; } | { grep -vE "$unwanted" || true; } |
    while IFS= read -r file; do
      if [[ -f $file || -L $file ]]; then printf '%s\n' "${file#/}"; fi
    done |
    tar -c -C / --no-recursion --files-from=- --transform='s,^usr/,,S;s,^sbin/,bin/,S' |
    tar -x -C "$out"
}

# Gives a script the store's shell. A script in another language is left out, as its interpreter is.
set_shell() {
  local line
  IFS= read -r line <"$1"
  if [[ -n $shell && $line =~ ^'#!'\ *(/usr)?/bin/(env +)?((ba)?sh)( .*)?$ ]]; then
    sed -i "1s,.*,#!$shell/bin/${BASH_REMATCH[3]}${BASH_REMATCH[5]}," "$1"
  else
    rm "$1"
  fi
}

# The directory with library $1, which file $2 needs.
directory_of() {
  local directory
  for directory in "${directories[@]}"; do
    if [[ -e $directory$1 ]]; then
      printf '%s\n' "${directory%/}"
      return
    fi
  done
  fail "no installed package has $1, which ${2#"$out"/} needs"
}

# Gives a program or library the store's loader and a run path of exactly what it links to.
set_libraries() {
  local file=$1 needed name loader directory run_path='' options=()
  # A static program has neither.
  needed=$(patchelf --print-needed "$file" 2>/dev/null) || return 0
  [[ -n $needed ]] || return 0
  if loader=$(patchelf --print-interpreter "$file" 2>/dev/null); then
    loader=${loader##*/}
    options+=(--set-interpreter "$(directory_of "$loader" "$file")/$loader")
    # glibc opens this one by name when a thread ends itself, and would look for it below /usr.
    if grep -qaE 'pthread_(cancel|exit)' "$file" && [[ $needed != *libgcc_s.so.1* ]]; then
      # By itself: patchelf 0.14 writes a wrong run path when it does both at once.
      patchelf --add-needed libgcc_s.so.1 "$file"
      needed+=' libgcc_s.so.1'
    fi
  fi
  for name in $needed; do
    directory=$(directory_of "$name" "$file")
    if [[ :$run_path: != *:$directory:* ]]; then run_path+=${run_path:+:}$directory; fi
  done
  patchelf "${options[@]}" --set-rpath "$run_path" "$file"
}

# Where in the output a file of this machine lies.
place_of() {
  local path=${1#/usr}
  printf '%s\n' "$out${path/#\/sbin\//\/bin\/}"
}

# Absolute links lead out of the store, some by way of /etc/alternatives; a link into another package has no target here.
set_target() {
  local target
  target=$(readlink "$1")
  if [[ $target == /* ]]; then
    if [[ $target == /etc/* ]]; then target=$(readlink -m "$target"); fi
    ln -sfrn "$(place_of "$target")" "$1"
  fi
  if [[ ! -e $1 ]]; then rm "$1"; fi
}

wrap() {
  local hidden=${1%/*}/.${1##*/}-wrapped
  mv "$1" "$hidden"
  # shellcheck disable=SC2016  # for the wrapper to expand
  printf '#!%s/bin/bash\n%s\nexec -a "$0" %s "$@"\n' "$shell" "$environment" "$hidden" >"$1"
  chmod +x "$1"
}

# Asked here, since below a failure of patchelf means a static program.
command -v patchelf >/dev/null || fail 'patchelf is not installed; .ci/set-up run installs it'

copy

directories=("$out"/lib*/**/)
for library in $libraries; do directories+=("$library"/lib*/**/); done

# One name of each file: patchelf would change the same program again by each of its names.
mapfile -d '' files < <(find "$out" -type f -printf '%i %p\0' | sort -z -n -s -k 1,1 -u | cut -z -d ' ' -f 2-)
programs=()
for file in "${files[@]}"; do
  magic=
  IFS= read -rN 4 magic <"$file" || true
  case $magic in
    $'\x7fELF')
      # Without libraries this is the C library, whose parts find each other by the loader.
      if [[ -n $libraries ]]; then set_libraries "$file"; fi
      if [[ $file == "$out"/bin/* ]]; then programs+=("$file"); fi
      ;;
    '#!'*) if [[ -x $file ]]; then set_shell "$file"; fi ;;
  esac
done

mapfile -d '' links < <(find "$out" -type l -print0)
for link in "${links[@]}"; do set_target "$link"; done

if [[ -n $environment ]]; then
  for program in "${programs[@]}"; do wrap "$program"; done
fi

# The command may have its name from update-alternatives.
if [[ -n $command && ! -e $out/bin/$command ]]; then
  ln -srn "$(place_of "$(readlink -f "$(type -P "$command")")")" "$out/bin/$command"
fi

cd "$out"
eval "$postInstall"
