# Packages under nixpkgs' names, each made from the Debian package installed on this machine. README.md
# says how to use it; index.sh finds out what is installed and what links to what, and builder.sh makes the packages.
# This file must read nothing but that index and the machine's CA certificates, so that a package changes exactly
# when its Debian package does. In a tree that `freeze` made it reads the copies there instead, and so means the
# same packages on any machine.
{ system ? builtins.currentSystem, ... }:

let
  # nixpkgs' attribute name, and in what it differs from the Debian package of that name:
  #   debian       name of the Debian package
  #   command      or a command that it has: the package is the one that has it on this machine
  #   environment  variables for its programs, in place of paths below /usr that Debian compiled in
  #   postInstall  shell command, run in $out at the end
  programs = {
    bash.postInstall = "ln -s bash bin/sh";
    # In Ubuntu a package of links to the programs of two others.
    coreutils.command = "ls";
    curl = { };
    # Written in Go. nixpkgs calls the program `registry`.
    distribution.debian = "docker-registry";
    distribution.postInstall = "ln -s docker-registry bin/registry";
    findutils = { };
    # Any awk: what update-alternatives has chosen.
    gawk.command = "awk";
    getent.debian = "libc-bin";
    git.environment = {
      GIT_EXEC_PATH = "${out}/lib/git-core";
      GIT_TEMPLATE_DIR = "${out}/share/git-core/templates";
    };
    gnugrep.debian = "grep";
    gnused.debian = "sed";
    gnutar.debian = "tar";
    gzip = { };
    hello = { };
    # Debian has the configuration and the certificates of Java in /etc, behind links.
    jre_headless.debian = newest "openjdk-[0-9]+-jre-headless";
    jre_headless.postInstall = ''
      rm -f lib/jvm/java-1.*
      cd lib/jvm/java-*/
      (cd "/usr/lib/jvm/''${PWD##*/}" && find . -type l -lname '/etc/*' -printf '%P\0') |
        tar -c -C "/usr/lib/jvm/''${PWD##*/}" --dereference --null --files-from=- | tar -x
      mkdir -p "$out/bin"
      ln -sr bin/* "$out/bin"
    '';
    less.environment = { inherit TERMINFO_DIRS; };
    nix.debian = "nix-bin";
    nix.environment = {
      NIX_BIN_DIR = "${out}/bin";
      NIX_LIBEXEC_DIR = "${out}/libexec";
    };
    nginx = { };
    nodejs = { };
    openssh.debian = "openssh-client";
    # Part of `openssh` in nixpkgs.
    opensshServer.debian = "openssh-server";
    openssl = { };
    # Without its just-in-time compiler, which needs LLVM.
    postgresql.debian = newest "postgresql-[0-9]+";
    postgresql.postInstall = ''
      rm -rf lib/postgresql/*/lib/{llvmjit*,bitcode}
      mkdir -p bin
      ln -sr lib/postgresql/*/bin/* bin
    '';
    # The interpreter finds its library beside it. Debian has that in two packages, some of it as scripts with the mode of
    # programs, which the builder leaves out of them.
    python3.debian = "${python}-minimal";
    python3.postInstall = ''
      for library in ${debianPackages."lib${python}-minimal"} ${debianPackages."lib${python}-stdlib"}; do
        cp -r --no-preserve=mode,ownership "$library/lib/." lib
      done
      dpkg-query -L lib${python}-minimal lib${python}-stdlib | grep '\.py$' | while read -r file; do
        [[ -e ''${file#/usr/} ]] || cp --no-preserve=mode,ownership "$file" "''${file#/usr/}"
      done
      ln -sr bin/python3.* bin/python3
    '';
    procps = { };
    sqlite.debian = "sqlite3";
    # tmate does not start without a UTF-8 locale and a description of the terminal.
    tmate.environment = {
      inherit TERMINFO_DIRS;
      LOCPATH = "${debianPackages.libc-bin}/lib/locale";
    };
    which.command = "which";
    xz.debian = "xz-utils";
  };

  python = newest "python3\\.[0-9]+";

  packages = mapAttrs (pname: program: make ({ inherit pname; debian = pname; shell = shellFor pname; } // program)) programs // {
    inherit buildEnv cacert debianPackages;
    # A file, which `freeze` copies.
    inherit index;
    glibc = debianPackages.${libc};
    zlib = debianPackages.zlib1g;
    # Names of nixpkgs for variants that Debian has one of.
    bashInteractive = packages.bash;
    gitMinimal = packages.git;
    # Where nixpkgs has the libraries of its C compiler.
    stdenv.cc.cc.lib = debianPackages."libstdc++6";
  };

  # Every installed package under its Debian name, without its shell scripts: the programs take their
  # libraries from here.
  debianPackages = mapAttrs (debian: _: make { inherit debian; pname = nixpkgsNames.${debian} or debian; }) installed;
  nixpkgsNames = { ${libc} = "glibc"; zlib1g = "zlib"; };

  inherit (builtins)
    attrNames concatMap concatStringsSep elem elemAt filter foldl' fromJSON hashFile mapAttrs match pathExists readFile toJSON;

  out = builtins.placeholder "out";
  shellFor = pname: if pname == "bash" then out else packages.bash;
  TERMINFO_DIRS = "${debianPackages.ncurses-base}/lib/terminfo";

  make = { pname, debian, command ? "", shell ? "", environment ? { }, postInstall ? "" }:
    let
      main = if command == "" then debian else commands.${command} or (throw "there is no `${command}` on this machine");
      package = packageOf main;
      parts = [ main ] ++ (if command == "" then [ ] else filter (name: name != libc) package.parts);
    in derivation {
      name = "${pname}-${upstream package.Version}";
      version = upstream package.Version;
      builder = "/bin/bash";
      args = [ ./builder.sh ];
      inherit pname system shell command postInstall;
      debian = map (name: "${name}:${(packageOf name).Architecture}") parts;
      # The builder does not read it: a new Debian revision has to be a new store path.
      debianVersion = map (name: (packageOf name).Version) parts;
      libraries = map (name: debianPackages.${name}) (librariesOf parts);
      # As with a compiled-in path, a variable that is set already wins.
      environment = concatStringsSep "\n"
        (map (name: ''export ${name}="''${${name}-${environment.${name}}}"'') (attrNames environment));
    };

  # Without epoch, Debian revision, and marks such as .dfsg and ~rc1: `~` may not stand in a store path.
  upstream = version: elemAt (match "([0-9]+:)?([^-+~.]+(\\.[0-9][^-+~.]*)*).*" version) 1;

  cacert = run "nss-cacert-${upstream (packageOf "ca-certificates").Version}" {
    bundle = builtins.path {
      name = "ca-certificates.crt";
      path = if frozen then ./ca-certificates.crt else /etc/ssl/certs/ca-certificates.crt;
    };
  } "mkdir -p $out/etc/ssl/certs; cp $bundle $out/etc/ssl/certs/ca-bundle.crt";

  # nixpkgs' function, made by the builder inside Nix that nix-env uses. It links whole packages; nixpkgs'
  # other arguments are taken and have no effect. Thanks to the manifest nix-env can go on from there.
  buildEnv = { name, paths, ... }: derivation {
    inherit name;
    system = "builtin";
    builder = "builtin:buildenv";
    derivations = map (path: [ "true" (path.meta.priority or 5) 1 path ]) paths;
    manifest = run "env-manifest.nix" {
      text = "[\n${concatStringsSep "" (map manifestEntry paths)}]\n";
    } "printf %s \"$text\" >$out";
  };
  manifestEntry = path: ''
    { type = "derivation"; name = ${toJSON path.name}; system = ${toJSON path.system}; meta = { };
      outPath = "${path}"; outputs = [ "out" ]; out = { outPath = "${path}"; }; }
  '';

  run = name: variables: script: derivation (variables // {
    inherit name system;
    # Not the machine's: in a container, where nix-env needs the manifest made, there is none.
    builder = "${packages.bash}/bin/bash";
    # bash has to stay to the end: a last command in its place closes its stdout some time before it ends,
    # and at that Nix kills a builder.
    args = [ "-euc" "PATH=/usr/bin:/bin; ${script}\nexit 0" ];
  });

  # What the programs and libraries of these packages link to, and the C library. That one opens libgcc_s for threads
  # that end themselves and cannot have it as a library, since libgcc_s links to the C library.
  librariesOf = parts:
    let
      linked = concatMap (name: (packageOf name).libraries) parts;
      all = linked ++ (if elem libc parts then [ ] else [ libc ]) ++ (if elem libc parts || elem libgcc parts then [ ] else [ libgcc ]);
    in attrNames (builtins.listToAttrs (map (name: { inherit name; value = null; }) (filter (name: !elem name parts) all)));
  libc = "libc6";
  libgcc = "libgcc-s1";

  # The newest installed package whose name has this form.
  newest = form: foldl' (_: name: name) form (filter (name: match form name != null) (attrNames installed));
  # What index.sh says of an installed package, by its name.
  packageOf = debian: installed.${debian} or (throw "Debian package ${debian} is not installed");
  installed = snapshot.packages;
  inherit (snapshot) commands;
  snapshot = fromJSON (readFile index);
  frozen = pathExists ./snapshot.json;
  index = if frozen then ./snapshot.json else derivation {
    name = "debian-packages.json";
    system = builtins.currentSystem;
    builder = "/bin/bash";
    args = [ "-euc" "bash ${./index.sh} >$out; exit 0" ];
    PATH = "/usr/bin:/bin";
    commands = concatMap (pname: let inherit (programs.${pname}) command; in if programs.${pname} ? command then [ command ] else [ ]) (attrNames programs);
    # Made again when anything is installed, upgraded or removed.
    status = hashFile "sha256" /var/lib/dpkg/status;
  };
in
packages
