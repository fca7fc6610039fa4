//! What a command line says about the program it runs: its package, as people know it, and its runtime.
//!
//! `npx @scope/server-x`, `uvx mcp-server-y`, `python -m z` and `node …/node_modules/@scope/x/dist/index.js` all run
//! something that has a name other than `node` or `python3`.

/// Names of files that every project has; the folder above them says more.
const GENERIC_FILES: &[&str] = &[
    "index", "main", "__main__", "server", "cli", "app", "start", "run", "mcp",
];

/// Folders between a project and its entry file.
const GENERIC_FOLDERS: &[&str] = &[
    "dist", "build", "src", "lib", "bin", "out", "esm", "cjs", "app", "node", "opt", "srv",
];

/// Options of interpreters whose value is an argument of its own.
const NODE_VALUES: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
];
const PYTHON_VALUES: &[&str] = &["-W", "-X", "--check-hash-based-pycs"];
const JAVA_VALUES: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--add-modules",
    "--add-opens",
];
const RUNNER_VALUES: &[&str] = &[
    "-p",
    "--package",
    "-c",
    "--call",
    "--with",
    "--with-requirements",
    "--python",
    "--index-url",
    "--directory",
    "--spec",
];

/// The package or script that `arguments` run; `None` where the executable itself is all there is to say.
#[must_use]
pub(super) fn package(arguments: &[String]) -> Option<String> {
    let (program, rest) = arguments.split_first()?;
    let program = base_name(program);
    match interpreter(program) {
        "node" | "bun" | "deno" => script_package(skip_words(operand(rest, NODE_VALUES), &["run", "x"], rest)?),
        "python" | "pypy" => python_package(rest),
        "npx" | "bunx" | "pnpx" => runner_package(rest),
        "uvx" | "pipx" => runner_package(without(rest, &["run"])),
        "npm" | "pnpm" | "yarn" => after(rest, &["exec", "x", "dlx"]).and_then(runner_package),
        "uv" => match after(rest, &["tool"]) {
            Some(tool) => after(tool, &["run"]).and_then(runner_package),
            None => after(rest, &["run"]).and_then(uv_run),
        },
        "java" => java_package(rest),
        "ruby" | "perl" | "php" | "sh" | "bash" | "dash" => script_package(operand(rest, &[])?),
        // npm and others write a whole sentence over their first argument.
        _ if rest.is_empty() && arguments[0].contains(' ') && !arguments[0].starts_with('/') => {
            let words: Vec<String> = arguments[0].split_whitespace().map(str::to_owned).collect();
            package(&words)
        }
        _ => None,
    }
}

/// What executes the program: `node`, `python`, `java` and the like, else `native`.
#[must_use]
pub(super) fn runtime(executable: &str) -> &'static str {
    match interpreter(base_name(executable)) {
        "node" => "node",
        "bun" => "bun",
        "deno" => "deno",
        "python" | "pypy" => "python",
        "java" => "java",
        "ruby" => "ruby",
        "php" => "php",
        "dotnet" => "dotnet",
        _ => "native",
    }
}

/// The last part of a path.
#[must_use]
pub(super) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// `python3.11` is `python`, `nodejs` is `node`.
fn interpreter(program: &str) -> &str {
    let name = program
        .trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
        .trim_end_matches('-');
    match name {
        "nodejs" => "node",
        name => name,
    }
}

/// The first argument that is neither an option nor an option's value.
fn operand<'a>(arguments: &'a [String], with_value: &[&str]) -> Option<&'a str> {
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "-e" | "--eval" | "-p" | "--print" | "-c" | "-" => return None,
            "--" => return arguments.next(),
            _ if with_value.contains(&argument) => drop(arguments.next()),
            _ if argument.starts_with('-') => {}
            _ => return Some(argument),
        }
    }
    None
}

/// Goes on to the argument behind `found` when that is one of `words` (`bun run x.js`).
fn skip_words<'a>(found: Option<&'a str>, words: &[&str], arguments: &'a [String]) -> Option<&'a str> {
    let found = found?;
    if !words.contains(&found) {
        return Some(found);
    }
    let behind = arguments.iter().position(|argument| argument == found)? + 1;
    operand(&arguments[behind..], NODE_VALUES)
}

fn after<'a>(arguments: &'a [String], words: &[&str]) -> Option<&'a [String]> {
    let first = arguments.iter().position(|argument| !argument.starts_with('-'))?;
    words
        .contains(&arguments[first].as_str())
        .then(|| &arguments[first + 1..])
}

fn without<'a>(arguments: &'a [String], words: &[&str]) -> &'a [String] {
    after(arguments, words).unwrap_or(arguments)
}

/// `npx`, `uvx` and their kin: the package named by an option, else the first operand.
fn runner_package(arguments: &[String]) -> Option<String> {
    for (at, argument) in arguments.iter().enumerate() {
        if !argument.starts_with('-') {
            break;
        }
        for option in ["--from", "--package", "--spec", "-p"] {
            if argument == option {
                return arguments.get(at + 1).and_then(|name| plain_package(name));
            }
            if let Some(name) = argument.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
                return plain_package(name);
            }
        }
    }
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if RUNNER_VALUES.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return plain_package(word);
        }
    }
    None
}

/// `uv run` takes a command, a script, or `-m module`.
fn uv_run(arguments: &[String]) -> Option<String> {
    let mut rest = arguments;
    while let Some((word, behind)) = rest.split_first() {
        if word == "-m" || word == "--module" {
            return behind.first().and_then(|module| plain_package(module));
        }
        rest = if RUNNER_VALUES.contains(&word.as_str()) {
            behind.get(1..)?
        } else if word.starts_with('-') {
            behind
        } else {
            return package(rest).or_else(|| script_package(word));
        };
    }
    None
}

fn python_package(arguments: &[String]) -> Option<String> {
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match argument {
            "-m" => return rest.next().and_then(plain_package),
            "-c" | "-" => return None,
            _ if PYTHON_VALUES.contains(&argument) => drop(rest.next()),
            _ if argument.starts_with("-m") => return plain_package(&argument[2..]),
            _ if argument.starts_with('-') => {}
            script => return script_package(script),
        }
    }
    None
}

fn java_package(arguments: &[String]) -> Option<String> {
    if let Some(at) = arguments.iter().position(|argument| argument == "-jar") {
        let jar = base_name(arguments.get(at + 1)?);
        return Some(jar.strip_suffix(".jar").unwrap_or(jar).to_owned());
    }
    let class = operand(arguments, JAVA_VALUES)?;
    class.rsplit('.').next().map(str::to_owned)
}

/// `@scope/name@1.2`, `name==1.2`, `name[extra]`: the name.
fn plain_package(text: &str) -> Option<String> {
    let name = base_name(text.split(['=', '<', '>', '~', '[', ';', '#']).next()?.trim());
    let name = name.strip_prefix('@').unwrap_or(name).split('@').next()?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The package a script belongs to, else the script's own name, else the folder that says more.
fn script_package(path: &str) -> Option<String> {
    if let Some((_, inside)) = path.rsplit_once("node_modules/") {
        let mut parts = inside.split('/');
        let first = parts.next()?;
        let name = if first.starts_with('@') || first == ".bin" {
            parts.next()?
        } else {
            first
        };
        return plain_package(name);
    }
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let file = parts.next()?;
    let stem = file
        .rsplit_once('.')
        .map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem });
    if !GENERIC_FILES.contains(&stem) {
        return Some(stem.to_owned());
    }
    let folder = parts.find(|part| !GENERIC_FOLDERS.contains(part) && *part != "." && *part != "..");
    Some(folder.unwrap_or(stem).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_where_a_command_line_names_one() {
        let check = |line: &str, expected: Option<&str>| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(package(&arguments).as_deref(), expected, "{line}");
        };
        check(
            "npx -y @modelcontextprotocol/server-everything@2026.8.31 stdio",
            Some("server-everything"),
        );
        check("npx --package=@a/tool@1 run-it", Some("tool"));
        check(
            "npm exec @modelcontextprotocol/server-everything",
            Some("server-everything"),
        );
        check("uvx mcp-server-time==1.2 --local-timezone UTC", Some("mcp-server-time"));
        check("uvx --from mcp-grafana serve", Some("mcp-grafana"));
        check("uv tool run mcp-server-git", Some("mcp-server-git"));
        check("uv run --directory /srv/w python -m weather", Some("weather"));
        check("uv run server.py", Some("server"));
        check("/usr/bin/python3.11 -u -m mcp_server_time", Some("mcp_server_time"));
        check("/venv/bin/python /venv/bin/mcp-server-fetch", Some("mcp-server-fetch"));
        check("python3 -X dev /srv/weather/src/server.py --port 8", Some("weather"));
        check("python3 -c print()", None);
        check(
            "node --import ./x.mjs /a/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
            Some("server-everything"),
        );
        check("node /a/node_modules/.bin/mcp-server-x stdio", Some("mcp-server-x"));
        check("node /srv/weather-mcp/dist/index.js", Some("weather-mcp"));
        check("node index.js", Some("index"));
        check("node -e 1", None);
        check("bun run /srv/notes/src/main.ts", Some("notes"));
        check("java -Xmx1g -jar /opt/weather-0.1.jar", Some("weather-0.1"));
        check("java -cp a:b com.example.WeatherServer", Some("WeatherServer"));
        check("/usr/local/bin/mcp-grafana -t stdio", None);
        check("", None);
    }

    #[test]
    fn a_sentence_written_over_the_first_argument_is_read_as_a_command_line() {
        assert_eq!(package(&["npm exec @scope/pkg stdio".into()]).as_deref(), Some("pkg"));
    }

    #[test]
    fn runtimes_are_named_by_the_interpreter() {
        assert_eq!(runtime("/usr/bin/python3.11"), "python");
        assert_eq!(runtime("/opt/node/bin/node"), "node");
        assert_eq!(runtime("/usr/bin/mcp-grafana"), "native");
    }
}
