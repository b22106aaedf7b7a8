#![no_main]

use std::panic::PanicHookInfo;
use tidegate_benches::fuzz::{block, is_decoding};

// libFuzzer's hook ends the process before anybody can catch a panic: it is for those that nobody catches.
libfuzzer_sys::fuzz_target!(
    init: {
        let others = std::panic::take_hook();
        let hook = move |panic: &PanicHookInfo<'_>| {
            if !is_decoding() {
                others(panic);
            }
        };
        std::panic::set_hook(Box::new(hook));
    },
    |bytes: &[u8]| block(bytes)
);
