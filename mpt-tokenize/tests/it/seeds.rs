//! Seeds of the fuzz targets: valid files, written to the corpora of `mpt-tokenize/fuzz`.

use std::path::Path;

use mpt_tokenize::{TrainConfig, train};

const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim }}\
    {% generation %}<|im_end|>{% endgeneration %}{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}";

#[test]
#[ignore = "a step of `cargo xtask fuzz`"]
fn are_written() {
    let config = TrainConfig { vocab_size: 300, min_frequency: 2 };
    let tokenizer = train(["a word and a word and", "12 12 é é"].into_iter(), &config).expect("trained");
    for (target, name, bytes) in
        [("tokenizer", "trained", tokenizer), ("template", "chatml", TEMPLATE.as_bytes().to_vec())]
    {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).expect("a folder for the corpus");
        std::fs::write(corpus.join(name), bytes).expect("room for a small file");
    }
}
