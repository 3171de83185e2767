// layer 2: not where the design puts it
