//! What every target does with its input: the readers that the tests go through too.

#[path = "../../tests/it/targets.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod targets;

/// Reads `data` as the target of this name does.
pub fn read(name: &str, data: &[u8]) {
    // libFuzzer takes every panic for a find; those that are caught are none.
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let abort = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !mpt_data::is_panic_caught() {
                abort(info);
            }
        }));
    });
    let target = targets::TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.read)(data);
}
