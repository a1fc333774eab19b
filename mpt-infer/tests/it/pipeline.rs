//! A model of the test's own, with a tokenizer, through [`Pipeline`]: text, ids, conversations, streams, and what lacks.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::Device;
use mpt_core::weights::GgufWriter;
use mpt_core::{ConvertOptions, MptConfig, Params, Weights, write_gguf};
use mpt_infer::{
    ChatTemplate, CompletionParams, Error, FinishReason, Message, OpenOptions, Pipeline, SamplingParams,
    TokenizerProblem,
};
use mpt_tokenize::{Tokenizer, TrainConfig, train};

const VOCAB_SIZE: usize = 320;

/// A folder with a drawn model and a tokenizer of about as many ids.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_model(dir.path());
    let texts = ["the river and the stone", "a cloud, a leaf, a moon", "naïve café"];
    let config = TrainConfig { vocab_size: VOCAB_SIZE, min_frequency: 1 };
    fs::write(dir.path().join("tokenizer.json"), train(texts.into_iter(), &config).unwrap()).unwrap();
    dir
}

fn save_model(dir: &Path) {
    let config = MptConfig::mpt(32, 2, 4, VOCAB_SIZE, 64).unwrap();
    fs::write(dir.join("config.json"), config.to_json()).unwrap();
    let params = Params::init(&config, 3, &Device::Cpu).unwrap();
    params.save(&dir.join("model.safetensors")).unwrap();
}

/// The folder's model as a GGUF file with these keys.
fn gguf(dir: &Path, describe: &mut dyn FnMut(&mut GgufWriter)) -> std::path::PathBuf {
    let path = dir.join("model.gguf");
    let weights = Weights::open(dir).unwrap();
    let options = ConvertOptions::default();
    write_gguf(&weights, &path, "test", &options, describe, &mut |_| ControlFlow::Continue(())).unwrap();
    path
}

fn write_tokenizer(header: &mut GgufWriter, tokenizer: &Tokenizer) {
    let parts = tokenizer.to_gguf(VOCAB_SIZE).unwrap();
    header.text("tokenizer.ggml.model", "gpt2");
    header.text("tokenizer.ggml.pre", "mpt");
    header.texts("tokenizer.ggml.tokens", &parts.tokens);
    header.ints("tokenizer.ggml.token_type", &parts.token_types);
    header.texts("tokenizer.ggml.merges", &parts.merges);
}

/// Sampled, so that texts hold bytes of unfinished characters too.
fn sampled(seed: u64) -> CompletionParams {
    let sampling = SamplingParams { temperature: 2.0, seed, ..SamplingParams::default() };
    CompletionParams {
        max_new_tokens: 40,
        sampling,
        stop_ids: Some(Vec::new()),
        ..CompletionParams::default()
    }
}

#[test]
fn a_folder_continues_text() {
    let dir = folder();
    let pipe = Pipeline::open(dir.path()).unwrap();
    let completion = pipe.generate("the river", &CompletionParams::default()).unwrap();
    let prompt = pipe.tokenizer().unwrap().encode("the river").unwrap();
    let ids = pipe.generate_ids(&prompt, &CompletionParams::default()).unwrap().ids;
    assert!(!ids.is_empty());
    assert_eq!((completion.prompt_tokens, &completion.generation.ids), (prompt.len(), &ids));
    assert_eq!(completion.text, pipe.tokenizer().unwrap().decode(&ids).unwrap());
    assert_eq!(pipe.stop_ids().unwrap(), [0]);
    let from_nothing = pipe.generate("", &CompletionParams::default()).unwrap();
    assert_eq!(from_nothing.prompt_tokens, 1);
}

#[test]
fn folder_run_and_gguf_say_the_same() {
    let dir = folder();
    let expected = Pipeline::open(dir.path()).unwrap().generate("a leaf", &sampled(1)).unwrap().text;
    let tokenizer = Tokenizer::from_file(&dir.path().join("tokenizer.json")).unwrap();
    let file = gguf(dir.path(), &mut |header| {
        write_tokenizer(header, &tokenizer);
        header.int("tokenizer.ggml.eot_token_id", 7);
    });
    let pipe = Pipeline::open(&file).unwrap();
    assert_eq!(pipe.generate("a leaf", &sampled(1)).unwrap().text, expected);
    assert_eq!(pipe.stop_ids().unwrap(), [7]);
    let run = tempfile::tempdir().unwrap();
    for step in [5, 20] {
        let checkpoint = run.path().join(format!("checkpoints/step-{step:08}"));
        fs::create_dir_all(&checkpoint).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(dir.path().join(name), checkpoint.join(name)).unwrap();
        }
    }
    let pipe = Pipeline::open(run.path()).unwrap();
    assert!(pipe.weights().path().ends_with("step-00000020"));
    assert_eq!(pipe.generate("a leaf", &sampled(1)).unwrap().text, expected);
}

#[test]
fn pieces_are_together_the_text_and_split_no_character() {
    let dir = folder();
    let pipe = Pipeline::open(dir.path()).unwrap();
    for seed in 0..12 {
        let mut pieces = Vec::new();
        let completion = pipe
            .stream("café", &sampled(seed), &mut |piece| {
                pieces.push(piece.to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(pieces.concat(), completion.text, "seed {seed}");
        let decoded = pipe.tokenizer().unwrap().decode(&completion.generation.ids).unwrap();
        assert_eq!(completion.text, decoded, "seed {seed}");
        assert!(pieces.len() >= completion.generation.ids.len(), "seed {seed}");
    }
}

#[test]
fn stop_texts_end_the_text_before_they_show() {
    let dir = folder();
    let pipe = Pipeline::open(dir.path()).unwrap();
    for seed in 0..6 {
        let free = pipe.generate("a moon", &sampled(seed)).unwrap().text;
        let stop: String = free.chars().skip(5).take(3).collect();
        let params = CompletionParams { stop: vec![stop.clone()], ..sampled(seed) };
        let mut shown = String::new();
        let stopped = pipe
            .stream("a moon", &params, &mut |piece| {
                shown.push_str(piece);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(stopped.text, free.split(&stop).next().unwrap(), "seed {seed}");
        assert_eq!((&shown, stopped.generation.finish_reason), (&stopped.text, FinishReason::Stop));
    }
    let ids_with_stop = CompletionParams { stop: vec!["x".to_owned()], ..CompletionParams::default() };
    let error = pipe.generate_ids(&[1], &ids_with_stop).unwrap_err().to_string();
    assert!(error.contains("`stop` is \"x\""), "{error}");
}

#[test]
fn a_caller_may_end_a_text() {
    let dir = folder();
    let pipe = Pipeline::open(dir.path()).unwrap();
    let one = pipe.stream("a", &sampled(0), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((one.generation.ids.len(), one.generation.finish_reason), (1, FinishReason::Callback));
    let one = pipe.stream_ids(&[1], &sampled(0), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((one.ids.len(), one.finish_reason), (1, FinishReason::Callback));
}

#[test]
fn a_conversation_is_answered_in_the_models_template() {
    let dir = folder();
    let messages = [Message::new("user", "the stone?")];
    let pipe = Pipeline::open(dir.path()).unwrap();
    let error = pipe.chat(&messages, &sampled(0)).unwrap_err();
    assert!(matches!(error, Error::NoChatTemplate { .. }), "{error}");
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");

    let source = "<{{ messages[0].content }}>{{ eos_token }}";
    fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    let answer = pipe.chat(&messages, &sampled(2)).unwrap();
    let as_text = pipe.generate("<the stone?><|endoftext|>", &sampled(2)).unwrap();
    assert_eq!(answer.text, as_text.text.split("<|endoftext|>").next().unwrap());
    assert_eq!(answer.prompt_tokens, as_text.prompt_tokens);

    // a template whose answers end with a text that this answer has
    let end: String = as_text.text.chars().skip(4).take(2).collect();
    let ending = ChatTemplate::from_source(
        source.replace("eos_token", "bos_token"),
        dir.path(),
        "<|endoftext|>",
        &end,
    );
    let pipe = pipe.with_chat_template(ending.unwrap());
    let ended = pipe.chat(&messages, &sampled(2)).unwrap();
    assert_eq!(ended.generation.finish_reason, FinishReason::Stop);
    assert_eq!(ended.text, as_text.text.split(&end).next().unwrap());
}

#[test]
fn a_gguf_file_brings_its_template_and_the_tokens_it_names() {
    let dir = folder();
    let tokenizer = Tokenizer::from_file(&dir.path().join("tokenizer.json")).unwrap();
    let file = gguf(dir.path(), &mut |header| {
        write_tokenizer(header, &tokenizer);
        header.int("tokenizer.ggml.eos_token_id", 0);
        header.text("tokenizer.chat_template", "{{ messages[0].content }}{{ eos_token }}");
    });
    let pipe = Pipeline::open(file).unwrap();
    let rendered = pipe.chat_template().unwrap().render(&[Message::new("user", "leaf")], true).unwrap();
    assert_eq!(rendered, "leaf<|endoftext|>");
    let bare = gguf(dir.path(), &mut |header| write_tokenizer(header, &tokenizer));
    let error = Pipeline::open(bare).unwrap().chat_template().unwrap_err().to_string();
    assert!(error.contains("`tokenizer.chat_template` is missing"), "{error}");
}

#[test]
fn without_a_tokenizer_ids_go_on_and_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    save_model(dir.path());
    let refused = |path: &Path, words: &[&str]| {
        let pipe = Pipeline::open(path).unwrap();
        assert_eq!(pipe.generate_ids(&[1, 2], &sampled(0)).unwrap().ids.len(), 40);
        let errors = [
            pipe.generate("a", &sampled(0)).unwrap_err(),
            pipe.with_chat_template(ChatTemplate::builtin("chatml").unwrap())
                .chat(&[Message::new("user", "a")], &sampled(0))
                .unwrap_err(),
        ];
        for error in errors {
            let message = error.to_string();
            assert!(matches!(error, Error::Tokenizer { .. }), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(message.contains("token ids instead of text") && !message.contains("--"), "{message}");
        }
    };
    refused(dir.path(), &["there is no tokenizer.json"]);
    fs::write(dir.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    refused(dir.path(), &["tokenizer.json: not a usable tokenizer.json: `model`"]);

    let sound = folder();
    let tokenizer = Tokenizer::from_file(&sound.path().join("tokenizer.json")).unwrap();
    let parts = tokenizer.to_gguf(VOCAB_SIZE).unwrap();
    type Describe<'a> = &'a mut dyn FnMut(&mut GgufWriter);
    let cases: [(Describe<'_>, &str); 6] = [
        (&mut |_| {}, "`tokenizer.ggml.model` is missing, expected `gpt2`"),
        (&mut |header| header.text("tokenizer.ggml.model", "llama"), "`tokenizer.ggml.model` is `llama`"),
        (
            &mut |header| {
                header.text("tokenizer.ggml.pre", "llama-bpe");
                header.text("tokenizer.ggml.model", "gpt2");
            },
            "`tokenizer.ggml.pre` is `llama-bpe`",
        ),
        (&mut |header| header.int("tokenizer.ggml.model", 3), "`tokenizer.ggml.model` is of another type"),
        (
            &mut |header| {
                header.text("tokenizer.ggml.model", "gpt2");
                header.texts("tokenizer.ggml.tokens", &parts.tokens);
            },
            "`tokenizer.ggml.merges` is missing, expected a list of texts",
        ),
        (
            &mut |header| {
                header.text("tokenizer.ggml.model", "gpt2");
                header.texts("tokenizer.ggml.tokens", &parts.tokens);
                header.texts("tokenizer.ggml.token_type", &["1"; VOCAB_SIZE]);
            },
            "`tokenizer.ggml.token_type` is of another type",
        ),
    ];
    for (describe, words) in cases {
        let file = gguf(dir.path(), describe);
        refused(&file, &["model.gguf: no usable tokenizer in the file", words]);
    }
}

#[test]
fn options_reach_the_model_and_problems_are_typed() {
    let dir = folder();
    let open = |options: &OpenOptions| Pipeline::open_with(dir.path(), options);
    let rounded =
        open(&OpenOptions { weight_dtype: mpt_core::WeightDtype::Q8_0, ..OpenOptions::default() }).unwrap();
    let form = rounded.weights().loaded_dtype("transformer.wte.weight").unwrap();
    assert_eq!(form, mpt_core::WeightDtype::Q8_0);
    let adapter = Some(dir.path().join("nowhere"));
    let error = open(&OpenOptions { adapter, ..OpenOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json"), "{error}");
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let problem = mpt_infer::folder_tokenizer(dir.path()).unwrap_err();
    assert!(matches!(problem, TokenizerProblem::Missing { .. }), "{problem}");
}
