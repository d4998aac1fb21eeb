"""Will a flight out of New York arrive fifteen minutes late or more?

Five ONNX models that answer the question behind one signature, a replay of labelled flights to
answer it for, and the script that makes both from a public data set. Importing this package needs
numpy at most; only ``train`` and the modules it calls need the ``train`` extra.
"""
