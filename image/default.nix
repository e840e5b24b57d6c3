# What the base image contains; ../docs/base-image.md says how it is built. It may use only names that nixpkgs has had for
# years. All of them stand in `tools` and `foreign`, but for `buildEnv`.
{
  # The tree of nixpkgs that the image has prefetched, and its commit, with the commit's date in seconds.
  nixpkgs, revision, date
, channel, release ? "", system ? builtins.currentSystem
  # URLs for labels: of the repository that builds the image, or "", and of nixpkgs.
, source ? "", nixpkgsSource ? "https://github.com/NixOS/nixpkgs"
  # What ./input-hash prints.
, inputHash
  # A static nixkit for `system`, else it is built with nixpkgs; and the names under which it can be called.
, toolkit ? "", applets
}:

let
  tools = with pkgs; [
    # Nix, and what it runs: a shell, archives, git and ssh.
    nix bashInteractive coreutils cacert gitMinimal gnutar gzip openssh xz
    # For people and their scripts, and for those of CI systems.
    curl
    findutils
    gawk
    (pkgs.getent or pkgs.glibc.getent or pkgs.glibc.bin)
    gnugrep
    gnused
    less
    procps
    tmate
    which
    # For `export-image --nix-database`.
    sqlite
  ] ++ optional (pkgs.cachix or null);

  # Programs made for other systems, such as the node of GitHub's runners, ask for their loader by this path.
  # nix-ld is there in its place, and gives them these libraries: no variable that other programs see too.
  foreign = if pkgs.nix-ld or null == null then null else {
    path = { x86_64-linux = "lib64/ld-linux-x86-64.so.2"; aarch64-linux = "lib/ld-linux-aarch64.so.1"; }.${system};
    program = "${pkgs.nix-ld}/libexec/nix-ld";
    loader = "${pkgs.glibc}/lib/${baseNameOf foreign.path}";
    libraries = [ pkgs.stdenv.cc.cc.lib pkgs.zlib ];
  };

  # The paths of fetchTarball: niv calls the tree `nixpkgs-src`, everybody else `source`.
  trees = builtins.listToAttrs (map
    (name: { inherit name; value = builtins.path { inherit name; path = nixpkgs; }; })
    [ "nixpkgs-src" "source" ]);
  packages = arguments: import trees.nixpkgs-src ({ config = { }; overlays = [ ]; } // arguments);
  pkgs = packages { inherit system; };
  # What is made here only arranges what is there: programs of this machine do it for any system.
  here = packages { };

  nixkit =
    if toolkit == "" then import ./toolkit.nix { inherit pkgs; }
    else make "nixkit" { binary = builtins.path { name = "nixkit-static"; path = toolkit; }; } ''
      mkdir -p $out/bin
      cp $binary $out/bin/nixkit
      chmod 0555 $out/bin/nixkit
    '';
  names = make "nixkit-names" { inherit nixkit applets; } ''
    mkdir -p $out/bin
    for applet in $applets; do ln -s $nixkit/bin/nixkit $out/bin/$applet; done
  '';

  profile = here.buildEnv { name = "base"; paths = tools ++ [ nixkit names ]; };
  # Not below /run: programs may have to run where something is mounted over that.
  profilePath = "/nix/var/nix/profiles/base";

  config = {
    Env = [
      # The second is root's profile if HOME is not /root, as in GitHub's jobs.
      "PATH=/root/.nix-profile/bin:/nix/var/nix/profiles/default/bin:${profilePath}/bin"
      "NIX_PATH=nixpkgs=${trees.nixpkgs-src}"
      "NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
      # Else nix-shell asks <nixpkgs> for one.
      "NIX_BUILD_SHELL=${profilePath}/bin/bash"
      # less would wait for a key where a CI offers a terminal.
      "PAGER=cat"
      "USER=root"
    ] ++ (if foreign == null then [ ] else [
      "NIX_LD=${foreign.loader}"
      "NIX_LD_LIBRARY_PATH=${builtins.concatStringsSep ":" (map (library: "${library}/lib") foreign.libraries)}"
    ]);
    Cmd = [ "bash" ];
    WorkingDir = "/root";
    Labels = ociLabels // named (builtins.readFile ../src/oci/label-prefix) ({
      inherit channel;
      nixpkgs = nixpkgsSource;
      nix-version = pkgs.nix.version;
      input-hash = inputHash;
    } // (if release == "" then { } else { inherit release; }));
  };

  # OCI's, which are annotations of the manifest and the index too.
  ociLabels = named "org.opencontainers.image." ({
    inherit revision;
    title = "nixpkgs-${channel}";
    description = "Nix, nixkit, and nixpkgs at commit ${builtins.substring 0 12 revision} of ${channel}, prefetched";
    # Of nixpkgs and nixkit; of Nix; and of most tools.
    licenses = "MIT AND LGPL-2.1-or-later AND GPL-3.0-or-later";
    created = date;
    version = if release == "" then revision else release;
  } // (if source == "" then { } else { inherit source; url = source; }));
  named = prefix: labels: builtins.listToAttrs
    (map (name: { name = "${prefix}${name}"; value = labels.${name}; }) (builtins.attrNames labels));

  # `nixpkgs` in flakes, `nix run` and `nix shell`.
  registry = {
    version = 2;
    flakes = [{
      from = { type = "indirect"; id = "nixpkgs"; };
      to = { type = "path"; path = "${trees.source}"; rev = revision; };
    }];
  };

  optional = value: if value == null then [ ] else [ value ];
  make = name: variables: script: derivation (variables // {
    inherit name;
    inherit (here.coreutils) system;
    builder = "${here.bashInteractive}/bin/bash";
    PATH = "${here.coreutils}/bin";
    args = [ "-euc" "${script}\nexit 0" ];
  });
in

# What export-image is given, for ./build.
make "base-image" {
  inherit profile;
  config = builtins.toJSON config;
  registry = builtins.toJSON registry;
  annotations = builtins.concatStringsSep "\n" (map (name: "${name}=${ociLabels.${name}}") (builtins.attrNames ociLabels));
  include = builtins.attrValues trees ++ (if foreign == null then [ ] else [ pkgs.nix-ld pkgs.glibc ] ++ foreign.libraries);
  loader = foreign.program or "";
  loaderPath = foreign.path or "";
} ''
  mkdir -p $out/rootfs/etc/nix $out/include
  ln -s $profile $out/profile
  for path in $include; do ln -s $path $out/include; done
  printf '%s\n' "$config" >$out/config.json
  printf '%s\n' "$annotations" >$out/annotations
  printf '%s\n' "$registry" >$out/rootfs/etc/nix/registry.json
  if [[ -n $loader ]]; then
    mkdir -p "$out/rootfs/''${loaderPath%/*}"
    ln -s "$loader" "$out/rootfs/$loaderPath"
  fi
''
