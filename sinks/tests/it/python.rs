//! A Python with packages that the tests need, made on first use in a cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its path. `packages` are what pip is told; `probe` fails where they are not there.
pub fn with(name: &str, packages: &[&str], probe: &str) -> Result<PathBuf, String> {
    let cache = std::env::var_os("TIDEGATE_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tidegate"));
    let cache = cache.or_else(home).unwrap_or_else(|| std::env::temp_dir().join("tidegate"));
    let failed = |e: std::io::Error| e.to_string();
    fs::create_dir_all(&cache).map_err(failed)?;
    // One process fetches, others wait for it.
    let lock = fs::File::create(cache.join(format!("{name}.lock"))).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let folder = cache.join(name);
    let python = folder.join("bin/python");
    let run = |program: &Path, args: &[&str]| match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{}: {error}", program.display())),
    };
    if run(&python, &["-c", probe]).is_err() {
        run(Path::new("python3"), &["-m", "venv", "--clear", folder.to_str().unwrap_or_default()])?;
        run(&python, &[&["-m", "pip", "install", "--quiet"], packages].concat())?;
    }
    Ok(python)
}

/// One with readers of Delta tables that have nothing of ours. `None` where they cannot be had, which is said.
#[allow(dead_code)]
pub fn readers() -> Option<PathBuf> {
    let packages = ["deltalake==1.6.*", "polars==2.1.*", "duckdb==2.0.*", "pyarrow", "pytz"];
    let found = with("readers", &packages, "import deltalake, polars, duckdb, pyarrow, pytz");
    found.inspect_err(|why| missing("Python with deltalake, polars and duckdb", why)).ok()
}

/// Whether tests may do without what could not be had.
pub fn missing(what: &str, why: &str) {
    eprintln!("no {what}, so nothing is tested on it: {why}");
    assert!(std::env::var("TIDEGATE_REQUIRE_SERVICES").as_deref() != Ok("1"), "required: {why}");
}
