// does not say its layer
