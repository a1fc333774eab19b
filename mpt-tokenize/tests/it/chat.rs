//! Chat templates: built-in ones byte for byte, Jinja templates in their sandbox.

use std::path::Path;
use std::time::{Duration, Instant};

use mpt_tokenize::{ChatTemplate, Error, Message, Tokenizer, TrainConfig, train};
use proptest::prelude::*;
use serde_json::{Value, json};

/// llm-foundry's default template.
const FOUNDRY: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn conversation(roles: &[&str]) -> Vec<Message> {
    roles.iter().enumerate().map(|(index, role)| Message::new(*role, format!("text {index}"))).collect()
}

fn rendered(template: &ChatTemplate, roles: &[&str], add_generation_prompt: bool) -> String {
    template.render(&conversation(roles), add_generation_prompt).expect("rendered")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn jinja(source: &str) -> ChatTemplate {
    try_jinja(source).expect("usable")
}

fn try_jinja(source: &str) -> Result<ChatTemplate, Error> {
    let dir = folder(&[("chat_template.jinja", source)]);
    ChatTemplate::from_folder(dir.path()).map(|found| found.expect("a template"))
}

#[test]
fn chatml_is_as_mpt_30b_chat_was_trained() {
    let chatml = ChatTemplate::builtin("chatml").expect("built in");
    assert_eq!(
        rendered(&chatml, &["user"], true),
        "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.<|im_end|>\n\
         <|im_start|>user\ntext 0<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        rendered(&chatml, &["system", "user", "assistant", "user"], false),
        "<|im_start|>system\ntext 0<|im_end|>\n<|im_start|>user\ntext 1<|im_end|>\n<|im_start|>assistant\ntext 2<|im_end|>\n<|im_start|>user\ntext 3<|im_end|>\n"
    );
    assert_eq!(chatml.stop_strings(), ["<|im_end|>", "<|endoftext|>"]);
    let error = chatml.render(&conversation(&["user", "robot"]), true).expect_err("no role").to_string();
    assert_eq!(
        error,
        "the chat template `chatml` does not take this conversation: message 1 is of the role `robot`, expected `system`, `user` or `assistant`"
    );
}

#[test]
fn instruction_forms_are_those_of_the_cards() {
    let forms = [
        ("mpt-30b-instruct", "\n\n###Instruction\ntext 0", "\n\n### Response\n"),
        ("mpt-7b-instruct", "\n### Instruction:\ntext 0", "\n### Response:\n"),
        ("dolly", "\n\n### Instruction:\ntext 0", "\n\n### Response:\n"),
    ];
    let intro = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
    for (name, instruction, response) in forms {
        let template = ChatTemplate::builtin(name).expect("built in");
        assert_eq!(rendered(&template, &["user"], true), format!("{intro}{instruction}{response}"));
        assert_eq!(rendered(&template, &["user"], false), format!("{intro}{instruction}"));
        assert_eq!(
            rendered(&template, &["user", "assistant"], false),
            format!("{intro}{instruction}{response}text 1")
        );
        assert_eq!(template.stop_strings(), ["<|endoftext|>"]);
        for roles in
            [&["system", "user"][..], &["user", "assistant", "user"], &["assistant"], &["user", "user"], &[]]
        {
            let error = template.render(&conversation(roles), true).expect_err("not single turn");
            assert!(matches!(error, Error::Conversation { .. }), "{error}");
        }
        assert!(template.render(&conversation(&["user", "assistant"]), true).is_err());
    }
}

#[test]
fn names_are_listed() {
    assert_eq!(ChatTemplate::builtin_names().count(), 4);
    let error = ChatTemplate::builtin("chatlm").expect_err("unknown").to_string();
    assert_eq!(
        error,
        "there is no chat template `chatlm`; the built-in ones are `chatml`, `mpt-30b-instruct`, `mpt-7b-instruct`, `dolly`"
    );
}

#[test]
fn a_folder_has_the_template_its_files_say() {
    let from = |files: &[(&str, &str)]| ChatTemplate::from_folder(folder(files).path());
    let text = |files: &[(&str, &str)]| {
        let template = from(files).expect("usable").expect("a template");
        (rendered(&template, &["user"], true), template.stop_strings().to_vec())
    };
    assert!(from(&[]).expect("usable").is_none());
    assert!(from(&[("tokenizer_config.json", "{\"chat_template\": null}")]).expect("usable").is_none());
    let config = json!({ "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "bos_token": "<s>", "eos_token": { "content": "</s>" } });
    assert_eq!(
        text(&[("tokenizer_config.json", &config.to_string())]),
        ("<s>text 0</s>".into(), vec!["</s>".into()])
    );
    let both = [
        ("tokenizer_config.json", config.to_string()),
        ("chat_template.jinja", "own<|im_end|>{{ eos_token }}".to_owned()),
    ];
    let both: Vec<(&str, &str)> = both.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(text(&both), ("own<|im_end|></s>".into(), vec!["<|im_end|>".into(), "</s>".into()]));
    let list = json!({ "chat_template": [{ "name": "rag", "template": "r" }, { "name": "default", "template": "d" }] });
    assert_eq!(text(&[("tokenizer_config.json", &list.to_string())]).0, "d");
    for (file, content, expected) in [
        ("tokenizer_config.json", "{", "tokenizer_config.json: not a usable chat template: EOF"),
        ("tokenizer_config.json", "{\"chat_template\": 5}", "`chat_template` is neither"),
        ("tokenizer_config.json", "{\"chat_template\": []}", "no template named `default`"),
        ("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}", "is no text"),
        ("chat_template.jinja", "{% if %}", "chat_template.jinja: not a usable chat template: "),
        ("chat_template.jinja", "{% include 'x' %}", "chat_template.jinja: not a usable chat template: "),
        ("chat_template.jinja", "{% import 'x' as x %}", "chat_template.jinja: not a usable chat template: "),
    ] {
        let error = from(&[(file, content)]).expect_err(content).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(ChatTemplate::from_file(Path::new("no/such.jinja")), Err(Error::Io { .. })));
}

#[test]
fn own_templates_see_what_transformers_gives_them() {
    let cases = [
        (FOUNDRY, "<|im_start|>user\ntext 0<|im_end|>\n<|im_start|>assistant\n"),
        ("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\n", "user\n"),
        ("{{ messages[0]['content'].strip().upper().split(' ')[1] }}", "0"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=text 0;"),
        ("{{ messages | tojson }}", "[{\"role\": \"user\", \"content\": \"text 0\"}]"),
        (
            "{{ {'a': \"<'é\"} | tojson }}{{ [1, true, none, 1.5] | tojson }}",
            "{\"a\": \"<'é\"}[1, true, null, 1.5]",
        ),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + 2 %}{% endfor %}{{ ns.n }}",
            "6",
        ),
        ("{%- macro m(x) -%}<{{ x }}>{%- endmacro -%}{{ m('a') }}{{ undefined_thing }}", "<a>"),
        ("{{ messages[1:] | length }}{{ '<b>' }}{{ strftime_now is defined }}", "0<b>False"),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(&jinja(source), &["user"], true), expected, "{source}");
    }
}

#[test]
fn a_template_may_refuse() {
    let source = "\n{% if messages[0].role != 'user' %}{{ raise_exception('users first') }}{% endif %}ok";
    assert_eq!(rendered(&jinja(source), &["user"], true), "\nok");
    let error = jinja(source).render(&conversation(&["system"]), true).expect_err("refused").to_string();
    assert!(error.contains(" failed in line 2: the template refuses: users first"), "{error}");
}

#[test]
fn hostile_templates_end_soon() {
    let deep =
        |open: &str, close: &str, n: usize| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    let sources = [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}".to_owned(),
        "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}".to_owned(),
        "{{ 'x' * 99999999 }}".to_owned(),
        "{{ '%99999999d' | format(1) }}".to_owned(),
        "{{ 'x'.replace('', 'y' * 100000).replace('', 'y' * 100000) }}".to_owned(),
        "{{ ('x' * 100000) | list | join('y' * 100000) }}".to_owned(),
        "{{ ('x\n' * 100000) | indent(100000) }}".to_owned(),
        "{{ 'x' | center(99999999) }}".to_owned(),
        "{{ 10 ** 10 ** 10 }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{{ messages[0].content.__class__.__mro__ }}".to_owned(),
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}".to_owned(),
        "{{ '{:99999999}'.format(1) }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}".to_owned(),
        "{% set a = namespace(x=1) %}{% set b = namespace(x=a, y=a) %}{{ b }}".to_owned(),
        "{{ [messages, messages] }}".to_owned(),
        "{% set x = messages + messages %}{{ x }}".to_owned(),
        "{{ messages | zip(messages) | list }}".to_owned(),
        "{{ messages | map('default', messages) | list }}".to_owned(),
        "{{ messages * 1000 }}".to_owned(),
        "{% for m in range(100000) %}{% for n in range(100000) %}{% if m == n %}{% endif %}{% endfor %}{% endfor %}".to_owned(),
    ];
    for source in sources {
        let began = Instant::now();
        let outcome = try_jinja(&source).and_then(|template| template.render(&conversation(&["user"]), true));
        let error = outcome.expect_err(&source).to_string();
        assert!(error.contains("not a usable chat template: ") || error.contains(" failed"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{source}");
    }
    for source in [
        deep("(", ")", 30_000),
        deep("[", "]", 30_000),
        deep("not ", "", 12_000),
        deep("-", "", 30_000),
        format!("{{{{ 1{} }}}}", "+1".repeat(30_000)),
        format!("{{{{ messages{} }}}}", ".a".repeat(30_000)),
        format!("{{{{ messages{} }}}}", "|list".repeat(10_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(5_000)),
        format!("{{{{ 1{} }}}}", "~1".repeat(30_000)),
        "{% if 1 %}".repeat(6000),
        "{% for x in [1] %}".repeat(3000) + &"{% endfor %}".repeat(3000),
        "x".repeat(100_000),
    ] {
        let began = Instant::now();
        if let Ok(template) = try_jinja(&source) {
            let _ = template.render(&conversation(&["user"]), true);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{}", &source[..40]);
    }
}

#[test]
fn nested_slices_do_not_exhaust_the_stack() {
    for last in [
        "",
        "{{ ns.x }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x == ns.y }}",
        "{% for m in ns.x %}{{ m.role }}{% endfor %}",
        "{{ ns.x | length }}",
    ] {
        let source = format!(
            "{{% set ns = namespace(x=messages, y=messages) %}}{{% for i in range(90000) %}}{{% set ns.x = ns.x[0:] %}}{{% set ns.y = ns.y[0:] + [1] %}}{{% if loop.index == messages[0].content | int %}}{{% break %}}{{% endif %}}{{% endfor %}}{last}"
        );
        for depth in [500, 90_000] {
            let messages =
                [Message::new("user", depth.to_string()), Message::new("user", "x".repeat(200_000))];
            let _ = jinja(&source).render(&messages, true);
        }
    }
}

/// Published templates stay usable.
#[test]
fn published_templates_are_accepted() {
    let cases = [
        (
            "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = 'S' %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 %}{{ '<|im_start|>system\n' + system_message.strip() + '\n' }}{% endif %}{{ '\n' }}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}{% if (add_generation_prompt == true) and loop.last %}{{ '\n' + '<|im_start|>' + 'assistant' + '\n' }}{% endif %}{% endfor %}",
            "<|im_start|>system\nS\n\n<|im_start|>user\ntext 0\n<|im_start|>assistant\n",
        ),
        (
            "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
            "[INST] text 0 [/INST]",
        ),
        (
            "{%- set ns = namespace(found=false, text='') -%}{%- for m in messages if m.role in ['user', 'assistant'] -%}{%- set ns.text = ns.text ~ m.content -%}{%- set ns.found = true -%}{%- endfor -%}{{ ns.text if ns.found else '' }}",
            "text 0",
        ),
        (
            "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ {'role': m.role, 'content': m.content | trim} | tojson }}{% endfor %}",
            "{\"role\": \"user\", \"content\": \"text 0\"}",
        ),
        (
            "{% if tools is defined and tools %}{{ tools | tojson }}{% endif %}{{ messages | map(attribute='role') | join(',') }}",
            "user",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(&jinja(source), &["user"], true), expected, "{source}");
    }
}

#[test]
fn conversations_without_bounds_are_refused() {
    let long = [Message::new("user", "x".repeat((4 << 20) + 1))];
    for template in [ChatTemplate::builtin("chatml").expect("built in"), jinja(FOUNDRY)] {
        assert!(matches!(template.render(&long, true), Err(Error::Conversation { .. })));
        assert!(matches!(template.render(&[], true), Err(Error::Conversation { .. })));
        let many = vec![Message::new("user", "x".repeat(200)); 200];
        assert!(template.render(&many, true).is_ok());
        assert!(template.render(&[Message::new("user", "x".repeat(4_000_000))], true).is_ok());
    }
}

#[test]
fn stop_ids_are_the_tokens_among_the_stop_strings() {
    let json =
        train(["the cat"].into_iter(), &TrainConfig { vocab_size: 290, min_frequency: 2 }).expect("trained");
    let load = |bytes| Tokenizer::from_bytes(bytes, Path::new("t.json")).expect("loadable");
    let chatml = ChatTemplate::builtin("chatml").expect("built in");
    assert_eq!(chatml.stop_ids(&load(json.clone())), [0]);
    let mut value: Value = serde_json::from_slice(&json).expect("JSON");
    let next = value["added_tokens"]
        .as_array()
        .and_then(|list| list.last())
        .and_then(|token| token["id"].as_u64())
        .expect("an id")
        + 1;
    for (content, id) in [("<|im_start|>", next), ("<|im_end|>", next + 1)] {
        let token = json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
        value["added_tokens"].as_array_mut().expect("a list").push(token);
    }
    assert_eq!(chatml.stop_ids(&load(value.to_string().into_bytes())), [next as u32 + 1, 0]);
}

#[test]
fn marks_of_what_is_generated_change_no_text() {
    let marked = "{% for m in messages %}{{ m.role }}: {% generation %}\n{{ m.content }}{% endgeneration %}\n!{% endfor %}";
    let plain =
        "{% for m in messages %}{{ m.role }}: {% if true %}\n{{ m.content }}{% endif %}\n!{% endfor %}";
    let messages = [Message::new("user", "a"), Message::new("assistant", "b")];
    let text = jinja(marked).render(&messages, false).expect("rendered");
    assert_eq!(text, jinja(plain).render(&messages, false).expect("rendered"));
    assert_eq!(text, "user: a!assistant: b!");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Built-in ChatML equals llm-foundry's template.
    #[test]
    fn chatml_is_the_template_of_llm_foundry(contents in prop::collection::vec("\\PC{0,20}|[ \\n<>{}%|]{0,9}", 1..5), add in any::<bool>()) {
        let mut messages = vec![Message::new("system", "be kind")];
        messages.extend(contents.into_iter().enumerate().map(|(at, text)| Message::new(["user", "assistant"][at % 2], text)));
        let chatml = ChatTemplate::builtin("chatml").expect("built in");
        prop_assert_eq!(chatml.render(&messages, add).expect("rendered"), jinja(FOUNDRY).render(&messages, add).expect("rendered"));
    }

    #[test]
    fn any_template_gives_a_text_or_an_error(parts in prop::collection::vec(prop_oneof![
        Just("{{"), Just("}}"), Just("{%"), Just("%}"), Just("{#"), Just("#}"), Just("-"), Just(" for x in "), Just(" endfor "), Just(" if "),
        Just(" endif "), Just("messages"), Just("[0]"), Just(".content"), Just("|"), Just("tojson"), Just("join"), Just("'a'"), Just("~"), Just("*"),
        Just("9"), Just(" set x = "), Just("x"), Just("("), Just(")"), Just(".strip()"), Just("[::-1]"), Just("|sort"), Just("|batch(0)"), Just("é"),
    ], 0..25)) {
        if let Ok(template) = try_jinja(&parts.concat()) {
            let _ = template.render(&conversation(&["user", "assistant"]), true);
        }
    }
}
