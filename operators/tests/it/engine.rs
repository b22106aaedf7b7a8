//! How the engine is built.

/// Luau checks its own invariants and every call of its API wherever `NDEBUG` is absent, and its build script does not set it.
/// The flag comes from `.cargo/config.toml`, which `CXXFLAGS` in the environment replaces.
#[cfg(not(debug_assertions))]
#[test]
fn its_assertions_are_not_part_of_a_release() {
    // Written otherwise here, or this test would find itself.
    let [assertion, message] = ["-idx <= L#top - L#base", "attempt#to#modify a readonly table"];
    let (assertion, message) = (assertion.replace('#', "->"), message.replace('#', " "));
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let found = memchr::memmem::find(&program, assertion.as_bytes());
    assert_eq!(found, None, "Luau is built with its assertions, at an eighth of the chain's speed: is -DNDEBUG in CXXFLAGS?");
    assert!(memchr::memmem::find(&program, message.as_bytes()).is_some(), "and yet it is Luau that was looked at");
}
