"""The ground floor: what a competition is. Imports no learning library."""
