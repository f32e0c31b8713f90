//! Labels of metrics: names of models come from callers and answers, and there may be any number of them.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::core::shared_text::SharedText;

/// The most names of one kind.
const MOST: usize = 64;
/// The most names of one kind, those of configurations included.
const MOST_CONFIGURED: usize = 1_024;
/// What stands for all others.
pub(super) const OTHER: &str = "other";
/// The longest name in bytes: a longer one is none.
const LONGEST: usize = 128;
/// Among so many, looking at each is quicker than hashing a name.
const FEW: usize = 8;

/// The names that were seen first, up to a number.
#[derive(Default)]
pub(super) struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    pub fn label(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.known(name) {
            return known;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MOST || name.len() > LONGEST {
            return Arc::from(OTHER);
        }
        let name: Arc<str> = Arc::from(name);
        names.insert(Arc::clone(&name));
        name
    }

    fn known(&self, name: &str) -> Option<Arc<str>> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = match names.len() <= FEW {
            true => names.iter().find(|known| ***known == *name),
            false => names.get(name),
        };
        known.map(Arc::clone)
    }

    /// Gives a name that is in a configuration its place, also when many others were there before. A program may make
    /// clients without end, though.
    pub fn know(&self, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !name.is_empty() && name.len() <= LONGEST && names.len() < MOST_CONFIGURED {
            names.insert(Arc::from(name));
        }
    }

    /// All names.
    pub fn all(&self) -> Vec<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().map(Arc::clone).collect()
    }
}

/// The labels of one client's metrics.
#[derive(Default)]
pub(super) struct Labels {
    asked: Names,
    answered: Names,
    configured: Names,
}

impl Labels {
    /// Names that are in the configuration have their place for certain, up to a number. The label.
    pub(super) fn know(&self, model: &str) -> Option<SharedText> {
        self.asked.know(model);
        self.configured.know(model);
        self.asked.known(model).map(SharedText::from)
    }

    /// The names of models that are in the configuration, and those that were in it.
    pub(super) fn configured(&self) -> Vec<Arc<str>> {
        self.configured.all()
    }

    /// The label of a model that was asked for.
    pub(super) fn asked(&self, model: &str) -> Arc<str> {
        self.asked.label(model)
    }

    /// The label of a model that answered.
    pub(super) fn answered(&self, model: &str) -> Arc<str> {
        self.answered.label(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_end_are_a_bounded_number_of_labels() {
        let labels = Labels::default();
        labels.know("own");
        let seen: HashSet<_> = (0..10_000).map(|number| labels.asked(&format!("model-{number}"))).collect();
        assert_eq!(seen.len(), MOST);
        assert!(seen.contains(OTHER));
        assert_eq!((&*labels.asked("own"), &*labels.asked("model-5")), ("own", "model-5"));
        assert_eq!(&*labels.answered("model-9999"), "model-9999");
        labels.know("new in a reloaded file");
        assert_eq!(&*labels.asked("new in a reloaded file"), "new in a reloaded file");
        assert_eq!(labels.configured().len(), 2);
        for number in 0..5_000 {
            labels.know(&format!("configured-{number}"));
        }
        assert_eq!((labels.asked.all().len(), labels.configured().len()), (MOST_CONFIGURED, MOST_CONFIGURED));
        assert_eq!(&*Labels::default().asked(&"x".repeat(LONGEST + 1)), OTHER);
    }
}
