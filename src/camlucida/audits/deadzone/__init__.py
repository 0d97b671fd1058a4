"""Dead zones: do methods light up what the model provably cannot see?"""
