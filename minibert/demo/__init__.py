"""The page to try a model on, in a browser: two sentences compared, and a [MASK] filled.

    python -m minibert.demo --model models/sbert_nli_small --mlm models/bert_mlm_small

`answers` asks the model, `html` puts what it says into words, `page` lays it out. gradio, which serves the page, is an
extra (`pip install -e ".[demo]"`). The page is for this machine alone and needs no internet.
"""
