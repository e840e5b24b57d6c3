# Packages under nixpkgs' names, each made from the Debian package installed on this machine. README.md
# says how to use it; builder.sh makes the packages. This file must read nothing but dpkg's database and
# the machine's CA certificates, so that a package changes exactly when its Debian package does. In a tree
# that `freeze` made it reads the copies there instead, and so means the same packages on any machine.
{ system ? builtins.currentSystem, ... }:

let
  # nixpkgs' attribute name, and in what it differs from the Debian package of that name:
  #   debian       name of the Debian package
  #   environment  variables for its programs, in place of paths below /usr that Debian compiled in
  #   postInstall  shell command, run in $out at the end
  programs = {
    bash.postInstall = "ln -s bash bin/sh";
    coreutils = { };
    curl = { };
    # Written in Go. nixpkgs calls the program `registry`.
    distribution.debian = "docker-registry";
    distribution.postInstall = "ln -s docker-registry bin/registry";
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
    jre_headless.debian = dependencyOf "default-jre-headless" "openjdk-[0-9]+-jre-headless";
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
    postgresql.debian = dependencyOf "postgresql" "postgresql-[0-9]+";
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
    sqlite.debian = "sqlite3";
    # tmate does not start without a UTF-8 locale and a description of the terminal.
    tmate.environment = {
      inherit TERMINFO_DIRS;
      LOCPATH = "${debianPackages.libc-bin}/lib/locale";
    };
    xz.debian = "xz-utils";
  };

  python = dependencyOf "python3" "python3\\.[0-9]+";

  packages = mapAttrs (pname: program: make ({ inherit pname; debian = pname; shell = shellFor pname; } // program)) programs // {
    inherit buildEnv cacert debianPackages snapshot;
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
    attrNames concatMap concatStringsSep elem elemAt filter fromJSON head intersectAttrs isList isString length
    listToAttrs mapAttrs match pathExists readFile split stringLength substring toJSON;

  out = builtins.placeholder "out";
  shellFor = pname: if pname == "bash" then out else packages.bash;
  TERMINFO_DIRS = "${debianPackages.ncurses-base}/lib/terminfo";

  make = { pname, debian, shell ? "", environment ? { }, postInstall ? "" }:
    let package = stanzaOf debian;
    in derivation {
      name = "${pname}-${upstream package.Version}";
      version = upstream package.Version;
      builder = "/bin/bash";
      args = [ ./builder.sh ];
      inherit pname system shell postInstall;
      debian = "${debian}:${package.Architecture}";
      # The builder does not read it: a new Debian revision has to be a new store path.
      debianVersion = package.Version;
      libraries = map (name: debianPackages.${name}) (librariesOf debian);
      # As with a compiled-in path, a variable that is set already wins.
      environment = concatStringsSep "\n"
        (map (name: ''export ${name}="''${${name}-${environment.${name}}}"'') (attrNames environment));
    };

  # Without epoch, Debian revision, and marks such as .dfsg and ~rc1: `~` may not stand in a store path.
  upstream = version: elemAt (match "([0-9]+:)?([^-+~.]+(\\.[0-9][^-+~.]*)*).*" version) 1;

  cacert = run "nss-cacert-${upstream (stanzaOf "ca-certificates").Version}" {
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

  # What a package may link to. The C library opens libgcc_s for threads that end themselves and depends
  # on it for that, while libgcc_s links to the C library: Debian has that cycle, the store may not.
  librariesOf = debian:
    if debian == libc then [ ]
    else filter isLibrary (dependencies debian ++ (if elem debian (dependencies libc) then [ ] else dependencies libc));
  libc = "libc6";

  isLibrary = debian: installed.${debian}.isLibrary or (listsLibrary debian);
  listsLibrary = debian:
    let
      package = installed.${debian};
      list = suffix: "/var/lib/dpkg/info/${debian}${suffix}.list";
      ofArchitecture = list ":${package.Architecture}";
      files = readFile (if pathExists ofArchitecture then ofArchitecture else list "");
    in length (split "/lib[^/\n]*\\.so" files) > 1;

  dependencies = debian: filter (name: name != debian)
    (concatMap resolve (names (installed.${debian}.Pre-Depends or "") ++ names (installed.${debian}.Depends or "")));

  # The dependency of an installed package whose name has this form: some packages exist to name another.
  dependencyOf = debian: form: head (filter (name: match form name != null) (dependencies debian) ++ [ debian ]);

  resolve = name: if installed ? ${name} then [ name ] else providers.${name} or [ ];
  providers = mapAttrs (_: value: [ value ]) (listToAttrs (concatMap
    (value: map (name: { inherit name value; }) (names (installed.${value}.Provides or "")))
    (attrNames installed)));

  # The names in a field such as "libc6 (>= 2.34), debconf | debconf-2.0".
  names = field: map head (filter isList (split "([a-z0-9][a-z0-9+.-]+)(:[a-z0-9]+)?( \\([^)]*\\))?" field));

  # dpkg's record of each installed package, by name.
  stanzaOf = debian: installed.${debian} or (throw "Debian package ${debian} is not installed");
  frozen = pathExists ./snapshot.json;
  installed = if frozen then fromJSON (readFile ./snapshot.json) else dpkgs;
  # What this file asks of dpkg, all at once: what `freeze` writes.
  snapshot = mapAttrs (debian: package: intersectAttrs fieldsRead package // { isLibrary = listsLibrary debian; }) installed;
  fieldsRead = { Architecture = null; Depends = null; Pre-Depends = null; Provides = null; Version = null; };
  dpkgs =
    let
      stanzas = map fields (strings "\n\n" (readFile /var/lib/dpkg/status));
      native = (head (filter (stanza: stanza.Package or "" == "dpkg") stanzas)).Architecture;
      isInstalled = stanza: match ".* installed" (stanza.Status or "") != null && elem stanza.Architecture [ native "all" ];
    in listToAttrs (map (value: { name = value.Package; inherit value; }) (filter isInstalled stanzas));
  fields = stanza: listToAttrs (map field (strings "\n" stanza));
  # Not by a regular expression: libstdc++ recurses for each character that one matches, and some fields are long.
  field = line: let name = head (split ":" line); in { inherit name; value = substring (stringLength name + 2) (-1) line; };
  strings = separator: text: filter isString (split separator text);
in
packages
