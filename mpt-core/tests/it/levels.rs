//! The numbers of the reference implementations at every instruction set that the processor can be held to.

use std::process::Command;

/// Compares models with the reference in a process whose kernels use no more than `level`; a processor without it uses what it has.
fn agree_at(level: &str) {
    let run = Command::new(std::env::current_exe().expect("this program"))
        .args(["parity::", "quantized::", "agreement::"])
        .env("MPT_CPU_LEVEL", level)
        .output()
        .expect("the tests of this program start");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "at {level}: {said}");
    let passed = said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(passed > Some(10), "at {level} {passed:?} tests ran: {said}");
}

#[test]
fn models_agree_with_plain_instructions() {
    agree_at("baseline");
}

#[test]
fn models_agree_with_avx2() {
    agree_at("avx2");
}

#[test]
fn models_agree_with_avx512() {
    agree_at("avx512");
}

#[test]
fn models_agree_with_avx512_and_bf16() {
    agree_at("avx512bf16");
}
