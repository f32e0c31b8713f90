//! Where a client's deployments are, as records of its calls say it: made once, shared by all of them.

use std::collections::HashMap;

use super::Telemetry;
use crate::core::record::Place;
use crate::core::shared_text::SharedText;

/// Among so many, looking at each is quicker than hashing a name.
const FEW: usize = 8;

/// A deployment, and the label of its model in metrics.
pub(crate) struct Known {
    pub place: Place,
    /// `None` when there are too many labels, and when calls name their models themselves.
    label: Option<SharedText>,
}

/// Where a client's deployments are, by name.
pub(crate) struct Places {
    all: HashMap<String, Place>,
    known: Vec<Known>,
    by_name: HashMap<SharedText, usize>,
}

impl Places {
    /// Gives the models of the configuration their labels.
    pub fn new(places: impl Iterator<Item = Place>, telemetry: &Telemetry) -> Self {
        let all: HashMap<String, Place> = places.map(|place| (place.deployment.to_string(), place)).collect();
        let known: Vec<Known> = all
            .values()
            .map(|place| Known { place: place.clone(), label: telemetry.labels.know(&place.model) })
            .collect();
        let by_name =
            known.iter().enumerate().map(|(at, known)| (known.place.deployment.clone(), at)).collect();
        Self { all, known, by_name }
    }

    /// All of them, by name.
    pub const fn all(&self) -> &HashMap<String, Place> {
        &self.all
    }

    /// The deployment of this name.
    pub fn get(&self, name: &str) -> Option<&Known> {
        match self.known.len() <= FEW {
            true => self.known.iter().find(|known| known.place.deployment == *name),
            false => self.by_name.get(name).and_then(|at| self.known.get(*at)),
        }
    }

    /// The only deployment; `None` when there are several.
    pub fn one(&self) -> Option<&Known> {
        match self.known.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// A model's name, shared where a deployment has it.
    pub fn model(&self, name: &str) -> SharedText {
        let known = self.known.iter().take(FEW).find(|known| known.place.model == *name);
        known.map_or_else(|| SharedText::from(name), |known| known.place.model.clone())
    }

    /// A host's name, shared where a deployment has it.
    pub fn provider(&self, name: &str) -> SharedText {
        let known = self.known.iter().take(FEW).find(|known| known.place.provider == *name);
        known.map_or_else(|| SharedText::from(name), |known| known.place.provider.clone())
    }

    /// The model that a deployment is asked for: among several, a call may name one by its deployment's name or as
    /// `provider/model`.
    pub fn model_at(&self, asked: &SharedText, place: &Place) -> SharedText {
        match *place.model_asked(asked, self.known.len() > 1) == *place.model {
            true => place.model.clone(),
            false => asked.clone(),
        }
    }
}

impl Known {
    /// The label of a model that was asked for here.
    pub fn label(&self, model: &SharedText) -> Option<SharedText> {
        self.label.clone().filter(|label| label == model)
    }
}
