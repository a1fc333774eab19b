//! `language`: the language of a text, by the trigrams and alphabets of the `whatlang` library.
//!
//! It tells 70 languages apart, needs no model file, and gives the same answer everywhere. Its confidence says how far the
//! best language is ahead of the second: it is near to 1 from a few sentences on, and cannot be compared with the scores of
//! fastText's models.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::{DocumentView, DropReason, InvalidKey, LANGUAGE, Rule, check_share};

/// Longer texts are judged by pieces of their beginning, middle and end, of this many bytes each.
const PIECE_BYTES: usize = 1024;

/// Languages to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// Languages to keep, by their ISO 639-3 codes, or 639-1 where there is one.
    pub any_of: Vec<String>,
    /// Least confidence of the library; a document at the threshold is kept.
    #[serde(default = "confidence")]
    pub min_confidence: f64,
}

fn confidence() -> f64 {
    0.65
}

impl Language {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        check_share("min_confidence", self.min_confidence)?;
        if self.any_of.is_empty() {
            return Err(InvalidKey::new("any_of", "empty", "codes of languages, such as \"eng\" or \"en\""));
        }
        match self.any_of.iter().find(|code| language(code).is_none()) {
            Some(code) => {
                let known: Vec<_> = Lang::all().iter().map(Lang::code).collect();
                Err(InvalidKey::new("any_of", format!("\"{code}\""), format!("one of {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }
}

/// Languages of the codes.
#[derive(Debug)]
pub(super) struct LanguageRule {
    any_of: Vec<Lang>,
    min_confidence: f64,
}

impl LanguageRule {
    pub(super) fn new(config: &Language) -> Self {
        let any_of = config.any_of.iter().filter_map(|code| language(code)).collect();
        Self { any_of, min_confidence: config.min_confidence }
    }
}

impl Rule for LanguageRule {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let Some(info) = whatlang::detect(&sample(&view.text)) else {
            return Some(DropReason { rule: LANGUAGE, value: "none".into() });
        };
        let is_kept = self.any_of.contains(&info.lang()) && info.confidence() >= self.min_confidence;
        let value = || format!("{} {:.4}", info.lang().code(), info.confidence());
        (!is_kept).then(|| DropReason { rule: LANGUAGE, value: value() })
    }
}

/// Sample of a text for detection.
fn sample(text: &str) -> Cow<'_, str> {
    if text.len() <= 3 * PIECE_BYTES {
        return text.into();
    }
    let piece = |start: usize| {
        let start = text.ceil_char_boundary(start);
        &text[start..text.floor_char_boundary(start + PIECE_BYTES)]
    };
    let starts = [0, (text.len() - PIECE_BYTES) / 2, text.len() - PIECE_BYTES];
    starts.map(piece).join(" ").into()
}

/// Language of a code.
fn language(code: &str) -> Option<Lang> {
    let code = TWO_LETTERS.iter().find(|(short, _)| *short == code).map_or(code, |(_, code)| code);
    Lang::from_code(code)
}

/// ISO 639-1 codes, and 639-3 codes of a wider language, of what the library knows.
const TWO_LETTERS: [(&str, &str); 77] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fas", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("nb", "nob"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("nor", "nob"),
    ("or", "ori"),
    ("ory", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tl", "tgl"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zho", "cmn"),
    ("zu", "zul"),
    ("arb", "ara"),
    ("azj", "aze"),
];

#[cfg(test)]
mod tests {
    use super::super::testing::drop_of;
    use super::*;

    const ENGLISH: &str = "The river runs past the old house, and in the evening the children of the village come down to \
        the water to look for the boats that their fathers built in winter.";
    const GERMAN: &str = "Der Fluss fließt an dem alten Haus vorbei, und am Abend kommen die Kinder des Dorfes hinunter zum \
        Wasser, um nach den Booten zu sehen, die ihre Väter im Winter gebaut haben.";
    const CHINESE: &str = "河水流过老房子，傍晚时分，村里的孩子们来到水边，寻找他们的父亲在冬天造的船。";

    fn verdict(codes: &[&str], min_confidence: f64, text: &str) -> Option<String> {
        let any_of = codes.iter().map(|&code| code.to_owned()).collect();
        let config = Language { any_of, min_confidence };
        config.check().expect("known");
        drop_of(&LanguageRule::new(&config), text)
    }

    #[test]
    fn languages_are_told_apart() {
        assert_eq!(verdict(&["en"], 0.65, ENGLISH), None);
        assert_eq!(verdict(&["eng", "deu"], 0.65, GERMAN), None);
        let value = verdict(&["en"], 0.65, GERMAN).expect("not English");
        assert!(value.starts_with("deu "), "{value}");
        assert_eq!(verdict(&["zh"], 0.65, CHINESE), None);
        assert_eq!(verdict(&["eng"], 0.0, "123 456"), Some("none".into()));
    }

    #[test]
    fn confidence_stays_at_the_threshold() {
        let text = "we go home now";
        let info = whatlang::detect(text).expect("letters");
        let (code, confidence) = (info.lang().code(), info.confidence());
        assert!(confidence < 0.9, "{confidence}");
        assert_eq!(verdict(&[code], confidence, text), None);
        let value = verdict(&[code], confidence.next_up(), text);
        assert_eq!(value, Some(format!("{code} {confidence:.4}")));
    }

    #[test]
    fn long_texts_are_judged_by_three_pieces() {
        let text = format!("{}{}", ENGLISH.repeat(20), GERMAN.repeat(200));
        assert!(verdict(&["en"], 0.0, &text).is_some_and(|value| value.starts_with("deu")));
        assert!(sample(&CHINESE.repeat(500)).len() <= 3 * PIECE_BYTES + 2);
    }

    #[test]
    fn every_code_is_known() {
        assert!(TWO_LETTERS.iter().all(|(_, code)| Lang::from_code(*code).is_some()));
        let short = |lang: &Lang| TWO_LETTERS.iter().any(|(_, code)| *code == lang.code());
        assert!(Lang::all().iter().all(short));
        let config = Language { any_of: vec!["english".into()], min_confidence: 0.5 };
        assert!(config.check().expect_err("no code").expected.starts_with("one of epo, eng"));
    }
}
